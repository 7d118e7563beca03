"""Taking a round back: its tag, its fields and its run record go; labels, images and the ledger's history stay."""

from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo import config as cfg
from gsal_fo.acquisition import ranking
from gsal_fo.audit import entries
from gsal_fo.fo import ledgers, progress, rounds, runs, states, writing
from gsal_fo.fo.app import views
from gsal_fo.fo.dataset import folders, pool


def cancel(samples: Any, *, round: int | None = None, on_event: progress.OnEvent | None = None) -> dict[str, Any]:
    """Cancel a round, as if it had not been selected. Labels are never touched, those of its images included.

    Its images lose the tag ``gsal_round_NNN``, ``gsal_round``, ``gsal_sent`` and ``gsal_status``; those without labels
    are in the pool again, and the ranking follows. The round's number is not given out again. The ledger keeps
    the entry of the selection, and gets one that says who cancelled it and when.

    Args:
        samples: the dataset (of a view, its dataset).
        round: its number; None is the latest.
        on_event: receives notes; None drops them.

    Returns:
        ``round``, ``tag``, ``images`` taken back, and ``labeled``: how many of them keep their labels.

    Raises:
        ValueError: no such round, or the ledger is broken.
    """
    dataset = pool.check_samples(samples)
    with folders.lock(folders.runs_of(dataset.slug), wait=True):
        return _cancel(dataset, round, on_event or (lambda event: None))


def _cancel(dataset: fo.Dataset, number: int | None, tell: progress.OnEvent) -> dict[str, Any]:
    keys = {runs.load(dataset, key).config.round: key for key in runs.select_keys(dataset)}
    number = max(keys, default=0) if number is None else number
    if number not in keys:
        has = f"its rounds are {', '.join(map(str, sorted(keys)))}" if keys else "it has none"
        raise ValueError(f'dataset "{dataset.name}" has no round {number or "to cancel"}; {has}')
    key = keys[number]
    config = runs.load(dataset, key).config
    mine = [state for n, state in states.refresh(dataset).values() if n == number]
    done = {"round": number, "tag": config.tag, "images": len(mine), "labeled": mine.count(states.LABELED)}
    mark = getattr(config, "ledger", None)  # selections of before the ledger have none
    if mark and config.score_run in runs.score_keys(dataset):
        run = Path(runs.load(dataset, config.score_run).config.run_dir)
        # The entry comes first: should the rest be cut short, cancelling again takes it to its end.
        if run.is_dir() and not ledgers.is_cancelled(dataset, config.score_run, mark):
            ledgers.record(dataset, config.score_run, entries.cancellation(mark, round=number, tag=config.tag))
    dataset.delete_run(key)
    view = views.OURS + "latest round"
    if dataset.has_saved_view(view):
        dataset.delete_saved_view(view)
    if runs.score_keys(dataset):
        _rank_again(dataset, tell)
    return done


def _rank_again(dataset: fo.Dataset, tell: progress.OnEvent) -> None:
    """The freed images get their ranks back, by the scoring that the fields show, with the labels of now."""
    info = runs.load(dataset, runs.writer(dataset))
    record = info.config
    try:
        state = rounds.load_state(dataset, record, record.label_field)
    except ValueError as error:
        tell({"event": "note", "message": f"the ranks could not be renewed: {error}"})
        return
    params = cfg.from_dict(cfg.GsalParams, record.params)
    if state.free.any():
        again = ranking.rank(state.table, state.graph, state.counts, params, keep=state.unlabeled, free=state.free)
        progress.consume(writing.refresh(dataset, again), tell)
