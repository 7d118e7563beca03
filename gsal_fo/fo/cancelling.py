"""Taking a round back: its tag, its fields and its run record go; labels, images and the ledger's history stay."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo import config as cfg
from gsal_fo.acquisition import ranking
from gsal_fo.audit import entries
from gsal_fo.fo import journal, ledgers, progress, rounds, runs, states, steps, writing
from gsal_fo.fo.dataset import fields, pool, slices
from gsal_fo.fo.dataset.prepared import Change, combined


def cancel(samples: Any, *, round: int | None = None, on_event: progress.OnEvent | None = None) -> dict[str, Any]:
    """Cancel a round, as if it had not been selected. Labels are never touched, those of its images included.

    Its images lose the tag ``gsal_round_NNN``, ``gsal_round``, ``gsal_sent`` and ``gsal_status``; those without labels
    are in the pool again, and the ranking follows. The round's number is not given out again. The ledger keeps
    the entry of the selection, and gets one that says who cancelled it and when.

    Killed, it either has not happened, or the next command on the dataset finishes it first; the same call again is
    that command, too, and takes no other round back.

    Args:
        samples: the dataset (of a view, its dataset).
        round: its number; None is the latest.
        on_event: receives notes; None drops them.

    Returns:
        ``round``, ``tag``, ``images`` taken back, and ``labeled``: how many of them keep their labels.

    Raises:
        ValueError: no such round, or the ledger is broken.
    """
    dataset = pool.check_dataset(samples)
    tell = on_event or (lambda event: None)
    request = journal.request_of(command="cancel", round=round)
    with journal.hold(dataset, "cancel", tell) as held:
        return held.result_of(request) or take_back(held, _key_of(dataset, round), request, tell)


def _key_of(dataset: fo.Dataset, number: int | None) -> str:
    """The run key of a round (None: of the latest)."""
    keys = {runs.load(dataset, key).config.round: key for key in runs.select_keys(dataset)}
    number = max(keys, default=0) if number is None else number
    if number not in keys:
        has = f"its rounds are {', '.join(map(str, sorted(keys)))}" if keys else "it has none"
        raise ValueError(f'dataset "{dataset.name}" has no round {number or "to cancel"}; {has}')
    return keys[number]


def take_back(held: journal.Hold, key: str, request: str, tell: progress.OnEvent) -> dict[str, Any]:
    """Take the round of a selection back; returns what `cancel` does."""
    dataset = held.dataset
    config = runs.load(dataset, key).config
    number, tag = config.round, config.tag
    mine = {i: state for i, (n, state) in states.refresh(dataset).items() if n == number}
    done = {
        "round": number,
        "tag": tag,
        "images": len(mine),
        "labeled": sum(state == states.LABELED for state in mine.values()),
    }
    schema = dataset.get_field_schema()
    empty = {name: None for name in fields.SELECT_FIELDS if name in schema}
    more = {i: Change(untags=[tag]) for i in slices.flat(dataset).match_tags(tag).values("id")}
    for i in mine:
        more[i] = Change(dict(empty), untags=[tag])
    values = held.prepare(combined(_ranked_again(dataset, set(mine), tell), more))
    others = [k for k in runs.select_keys(dataset) if k != key]
    todo = [
        *_cancellation(held, config),
        steps.merge(values),
        *([] if others else [steps.remove_fields(fields.SELECT_FIELDS)]),
        steps.forget(key),
        steps.follow_rounds(),
    ]
    held.apply(request, todo, done, values=values)
    return done


def _cancellation(held: journal.Hold, config: Any) -> list[steps.Step]:
    """The entry in the ledger, where the selection has one and its scoring is there."""
    mark = getattr(config, "ledger", None)  # selections of before the ledger have none
    if not mark or config.score_run not in runs.score_keys(held.dataset):
        return []
    run = Path(runs.load(held.dataset, config.score_run).config.run_dir)
    if not run.is_dir() or ledgers.is_cancelled(held.dataset, config.score_run, mark):
        return []
    entry = entries.cancellation(mark, round=config.round, tag=config.tag)
    return [steps.note_in_ledger(config.score_run, entry, f"{held.token}-{config.round}")]


def _ranked_again(dataset: fo.Dataset, freed: Collection[str], tell: progress.OnEvent) -> writing.Changes:
    """The freed images get their ranks back, by the scoring that the fields show, with the labels of now."""
    if not runs.score_keys(dataset):
        return
    info = runs.load(dataset, runs.writer(dataset))
    record = info.config
    try:
        state = rounds.load_state(dataset, record, record.label_field, freed=freed)
    except ValueError as error:
        tell({"event": "note", "message": f"the ranks could not be renewed: {error}"})
        return
    params = cfg.from_dict(cfg.GsalParams, record.params)
    if state.free.any():
        again = ranking.rank(state.table, state.graph, state.counts, params, keep=state.unlabeled, free=state.free)
        yield from writing.refreshed(dataset, again)
