"""Our workspace in the App: the grid and its map on the left, our panels on the right."""

import fiftyone as fo

from gsal_fo.fo.app import plugin_folder

NAME = "GSAL"
MAP = "gsal_map_images"  # the brain run of `visualizing`
PANELS = ("gsal_concepts", "gsal_preview")


def save(dataset: fo.Dataset) -> None:
    """Save or replace the workspace of our name; a person's own stay."""
    left: list[fo.Panel] = [fo.Panel(type="Samples", pinned=True)]
    if dataset.has_brain_run(MAP):
        left.append(fo.Panel(type="Embeddings"))
    spaces = [_tabs(left)]
    if plugin_folder.is_installed():  # a panel that the App does not know is an empty frame
        spaces.append(_tabs([fo.Panel(type=name) for name in PANELS]))
    space = fo.Space(children=spaces, orientation="horizontal")
    dataset.save_workspace(
        NAME, space, description="The pool, its map, and how much of each concept is labeled", overwrite=True
    )


def _tabs(panels: list[fo.Panel]) -> fo.Space:
    # Without an active child FiftyOne shows an empty space.
    return fo.Space(children=panels, active_child=panels[0].component_id)
