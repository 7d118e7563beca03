"""Our workspace in the App: the grid and its map on the left, our panels on the right."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou

from gsal_fo.fo.app import plugin_folder

NAME = "GSAL"
SAYS = "The pool, its map, and how much of each concept is labeled"  # by it the workspace is known as ours
MAP = "gsal_map_images"  # the brain run of `visualizing`
PANELS = ("gsal_concepts", "gsal_preview")


def save(dataset: fo.Dataset, tell: Callable[[str], None]) -> None:
    """Make our workspace, or give it what has come since: the map, the panels. One that a person made or has arranged
    anew stays; ``tell`` hears of a person's that has our name."""
    left: list[fo.Panel] = [fo.Panel(type="Samples", pinned=True)]
    if dataset.has_brain_run(MAP):
        left.append(fo.Panel(type="Embeddings"))
    spaces = [_tabs(left)]
    if plugin_folder.is_installed():  # a panel that the App does not know is an empty frame
        spaces.append(_tabs([fo.Panel(type=name) for name in PANELS]))
    space = fo.Space(children=spaces, orientation="horizontal")
    dataset._doc.reload("workspaces")
    slug = fou.to_slug(NAME)
    doc = next((d for d in dataset._doc.get_workspaces() if d.name == NAME or d.slug == slug), None)
    if doc is None:
        dataset.save_workspace(NAME, space, description=SAYS)
    elif doc.name != NAME or doc.description != SAYS:
        tell(
            f'the workspace "{NAME}" was not saved: your workspace "{doc.name}" has this name in the App\'s address; '
            f"rename yours and set up views again to have both"
        )
    elif _as_made(doc.child) and _layout(doc.child) != _layout(space):
        # In place: somebody may have it open, and FiftyOne's own overwriting deletes it first.
        doc.child, doc.last_modified_at = space, datetime.now(UTC)
        doc.name = NAME  # hands its name on to the new space
        doc.save()


def _tabs(panels: list[fo.Panel]) -> fo.Space:
    # Without an active child FiftyOne shows an empty space.
    return fo.Space(children=panels, active_child=panels[0].component_id)


def _layout(space: Any) -> list[list[str]]:
    return [[panel.type for panel in getattr(part, "children", [])] for part in space.children]


def _as_made(space: Any) -> bool:
    """Whether the panels are such as set-up puts side by side, by now or by what an earlier version had."""
    right: list[list[list[str]]] = [[], [["gsal_concepts"]], [list(PANELS)]]
    return _layout(space) in [
        [samples, *more] for samples in (["Samples"], ["Samples", "Embeddings"]) for more in right
    ]
