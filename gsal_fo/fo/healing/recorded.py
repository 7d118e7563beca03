"""Run records that lost a part: references to nothing, documents that nothing refers to, run folders that are gone."""

from pathlib import Path

import fiftyone as fo

from gsal_fo.fo import journal, progress, runs, steps
from gsal_fo.fo.dataset import records
from gsal_fo.fo.healing.finding import Cure, Finding, Findings


def findings(dataset: fo.Dataset) -> Findings:
    """What is wrong with the dataset's run records."""
    dangling, orphans = records.broken(dataset)
    for key in dangling:
        detail = f"the dataset refers to a run {key} that is gone"
        yield Finding("reference to nothing", detail, "the reference is removed", act=_forget(key))
    for key, document in orphans:
        detail = f"a record of {key} is left ({document}), and the dataset does not refer to it"
        yield Finding("lost record", detail, "it is removed", act=_forget_lost(document))
    for key in runs.score_keys(dataset):
        folder = Path(runs.load(dataset, key).config.run_dir)
        if not (folder / "manifest.parquet").is_file():
            yield Finding(
                "run folder gone",
                f"{key} lay in {folder}, which is gone: nothing can be selected from it",
                f"bring the folder back, or score again; dataset.delete_run({key!r}) removes the record",
                mendable=False,
            )


def _forget(key: str) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        held.apply(journal.request_of(command="mend", forget=key), [steps.forget(key)], {})

    return act


def _forget_lost(document: str) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        held.apply(journal.request_of(command="mend", lost=document), [steps.forget_lost(document)], {})

    return act
