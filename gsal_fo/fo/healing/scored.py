"""Score fields that are half written, empty, or of a scoring that is gone."""

from typing import Any

import fiftyone as fo

from gsal_fo.fo import journal, progress, rounds, runs, steps
from gsal_fo.fo.dataset import fields, records
from gsal_fo.fo.healing.finding import Cure, Finding, Findings


def findings(dataset: fo.Dataset) -> Findings:
    """What is wrong with the dataset's score fields."""
    configs = {key: runs.load(dataset, key).config for key in runs.score_keys(dataset)}
    usable = {key: c for key, c in configs.items() if _is_there(c)}
    writer = runs.writer(dataset)
    for key, config in configs.items():
        if not config.complete and key in usable:
            detail = f"{key} was cut short while it wrote: some images have its scores, some have none"
            yield Finding("half written scores", detail, "they are written again from its run folder", act=_write(key))
        elif not config.complete:
            detail = f"{key} was cut short while it wrote, and its run folder is gone"
            yield _replaced(detail, key, [k for k in usable if usable[k].complete])
        elif not config.counts["scored"] and key == writer:
            earlier = [k for k in usable if usable[k].complete and usable[k].counts["scored"]]
            yield _replaced(f"{key} scored no image, and emptied the scores of before", key, earlier)
    if writer is not None and writer not in configs:
        earlier = [k for k in usable if usable[k].complete]
        yield _replaced(f"the score fields hold values of {writer}, which has no record", writer, earlier)


def _is_there(config: Any) -> bool:
    try:
        rounds.run_folder(config)
    except ValueError:
        return False
    return True


def _replaced(detail: str, key: str, usable: list[str]) -> Finding:
    """The scores of ``key`` go, and those of the latest usable scoring come back."""
    if usable:
        cure = f"{key} is removed, and the scores of {usable[-1]} are written again"
        return Finding("lost scores", detail, cure, act=_write(usable[-1], without=key))
    cure = f"{key} and its score fields are removed; score again"
    return Finding("lost scores", detail, cure, act=_remove(key))


def _write(key: str, without: str | None = None) -> Cure:
    """Write all values of a scoring, ranked with the labels of now."""

    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        dataset = held.dataset
        info = runs.load(dataset, key)
        values = held.prepare(rounds.written_again(dataset, info))
        config = info.config
        config.complete = True
        todo = [
            steps.declare("score"),
            steps.record(records.new(dataset, key, config, time=info.timestamp)),
            steps.written_by(key),
            steps.merge(values),
            *([steps.forget(without)] if without else []),
        ]
        held.apply(journal.request_of(command="mend", write=key), todo, {}, values=values)

    return act


def _remove(key: str) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        todo = [steps.remove_fields(fields.SCORE_FIELDS), steps.forget(key)]
        held.apply(journal.request_of(command="mend", remove=key), todo, {})

    return act
