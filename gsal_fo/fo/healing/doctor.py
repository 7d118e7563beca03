"""Examining a dataset, and mending it: one finding after the other, each as a command that may itself be killed."""

from dataclasses import replace
from typing import Any

import fiftyone as fo

from gsal_fo.fo import journal, progress
from gsal_fo.fo.dataset import reloading
from gsal_fo.fo.healing import locked, marks, recorded, scored, unclaimed
from gsal_fo.fo.healing.finding import Finding, Findings

CHECKS = (recorded.findings, marks.findings, scored.findings, unclaimed.findings)


def examine(samples: Any) -> list[Finding]:
    """What is not as a command would have left it; nothing is written.

    Args:
        samples: the dataset (of a view, its dataset).

    Returns:
        The findings, in the order in which mending one helps the next.
    """
    dataset = samples._root_dataset
    reloading.document(dataset)
    left = list(locked.findings(dataset))
    if any(f.kind == locked.UNFINISHED for f in left):
        return left  # what else does not fit comes of that
    return [*left, *_findings(dataset)]


def mend(samples: Any, *, on_event: progress.OnEvent | None = None) -> list[Finding]:
    """Mend what can be mended without a person's decision. Labels, images and files are never touched.

    Args:
        samples: the dataset (of a view, its dataset).
        on_event: receives notes; None drops them.

    Returns:
        The findings, with ``mended`` where that was done, and with the reason in ``cure`` where it could not be.
    """
    dataset = samples._root_dataset
    reloading.document(dataset)
    tell = on_event or (lambda event: None)
    out = [replace(f, mended=True) for f in locked.findings(dataset) if f.mendable]
    tried = {(f.kind, f.detail) for f in out}
    with journal.hold(dataset, "doctor --mend", tell) as held:  # which itself finishes what is pending
        while True:  # mending one may be the end of others
            found = next((f for f in _findings(dataset) if (f.kind, f.detail) not in tried), None)
            if found is None:
                return out
            tried.add((found.kind, found.detail))
            out.append(_mended(held, found, tell))


def _findings(dataset: fo.Dataset) -> Findings:
    for check in CHECKS:
        yield from check(dataset)


def _mended(held: journal.Hold, found: Finding, tell: progress.OnEvent) -> Finding:
    if found.act is None:
        return found
    try:
        found.act(held, tell)
    except ValueError as error:
        return replace(found, cure=f"could not be mended: {error}", mendable=False)
    return replace(found, mended=True)
