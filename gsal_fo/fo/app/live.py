"""A scoring's statistics and the dataset's labels of now, kept between the events of a panel.

An event of the App runs in the server, and reading 100,000 images for each move of a slider would take seconds. What is
kept is checked against the database at every use, so it is never older than the dataset.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import fiftyone as fo

from gsal_fo.fo import rounds, runs
from gsal_fo.fo.dataset import pool, slices
from gsal_fo.run_folder import cache

KEPT = 2  # scorings in memory: about 100 bytes per proposal
# A writer stamps all of a chunk with the time at which it began: within this time a read may have seen half of it.
SETTLED = timedelta(seconds=5)


@dataclass(frozen=True)
class Live:
    """``key`` and ``record``: the scoring; ``state``: its statistics and what is labeled and picked by now; ``mark``:
    changes with every change of the dataset."""

    key: str
    record: Any
    state: rounds.State
    mark: str


_kept: OrderedDict[tuple[str, str], Live] = OrderedDict()
_lock = Lock()


def of(dataset: Any, run_key: str | None = None) -> Live:
    """The state of a scoring (None: the latest) as the dataset is now.

    Raises:
        ValueError: no such scoring, or its run folder is gone.
    """
    root = pool.check_dataset(dataset)
    info = runs.load(root, run_key)
    if info.config.method != runs.SCORE:
        raise ValueError(f'run "{info.key}" is a selection, not a scoring; choose one of {runs.score_keys(root)}')
    rounds.run_folder(info.config)
    place, (mark, settled) = (str(root._doc.id), info.key), _mark(root)
    with _lock:
        found = _kept.get(place)
        if found is not None and found.mark == mark:
            _kept.move_to_end(place)
            return found
    table = found.state.table if found is not None and found.record.run_dir == info.config.run_dir else None
    read = cache.load if table is None else lambda folder: table
    out = Live(info.key, info.config, rounds.load_state(root, info.config, info.config.label_field, read), mark)
    with _lock:
        _kept.pop(place, None)
        if settled:
            _kept[place] = out
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return out


def _mark(dataset: fo.Dataset) -> tuple[str, bool]:
    """What changes with every change of samples or runs, and whether the latest change is long enough ago to be over.

    Every write of FiftyOne's and of ours sets ``last_modified_at``, which has an index.
    """
    images = slices.flat(dataset)
    newest = images.sort_by("last_modified_at", reverse=True).limit(1).values("last_modified_at")
    mark = f"{len(images)} {newest} {sorted(dataset.list_runs())}"
    return mark, not newest or datetime.now(UTC) - newest[0].replace(tzinfo=newest[0].tzinfo or UTC) > SETTLED
