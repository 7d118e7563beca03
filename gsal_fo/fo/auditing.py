"""The dataset's side of an audit: which selections its run records know, and where each left its entry."""

from pathlib import Path
from typing import Any

from gsal_fo.audit import verify as audit
from gsal_fo.fo import runs
from gsal_fo.fo.dataset import pool


def verify(samples: Any, *, run_key: str | None = None) -> dict[Path, list[str]]:
    """Check every scoring of a dataset that something was selected from, or one of them.

    Returns:
        Run folder of each scoring -> what was altered, one sentence each; an empty list where all is as it was.

    Raises:
        ValueError: no scoring, or nothing was selected from it yet.
    """
    dataset = pool.check_samples(samples)
    wanted = [runs.load(dataset, run_key).key] if run_key else runs.score_keys(dataset)
    recorded: dict[str, dict[str, str]] = {key: {} for key in wanted}
    for key in runs.select_keys(dataset):
        config = runs.load(dataset, key).config
        # Selections of before the ledger have no hash to hold against it.
        if config.score_run in recorded and getattr(config, "ledger", None):
            recorded[config.score_run][config.tag] = config.ledger
    if not any(recorded.values()):
        raise ValueError(f"nothing was selected yet from {', '.join(wanted) or 'this dataset'}; run select first")
    out = {}
    for key, marks in recorded.items():
        if marks:
            run = Path(runs.load(dataset, key).config.run_dir)
            out[run] = audit.verify(run, marks)
    return out
