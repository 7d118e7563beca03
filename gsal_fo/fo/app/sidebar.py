"""Our group in the App's sidebar, and which of our fields are ticked. What a person has arranged stays."""

import fiftyone as fo

from gsal_fo.fo.dataset import fields

SHOWN = ("gsal_score", "gsal_fine", "gsal_proposals")  # bubbles on the grid; the reasons are in the sample modal
# Groups that FiftyOne makes by itself: a field of ours in one of them was put there by nobody.
MADE_BY_FIFTYONE = ("tags", "metadata", "labels", "frame labels", "primitives", "other")


def arrange(dataset: fo.Dataset, label_field: str) -> None:
    """Group our fields and tick some, once; later calls only place fields that are new. The caller saves."""
    if not _has_group(dataset):
        _tick(dataset, label_field)
    group(dataset)


def group(dataset: fo.Dataset) -> None:
    """Put our fields into a group below the tags; where a person has put one into another group, it stays there."""
    names = [f.name for f in fields.SAMPLE_FIELDS if dataset.has_sample_field(f.name)]
    groups = list(dataset.app_config.sidebar_groups or fo.DatasetAppConfig.default_sidebar_groups(dataset))
    again = _has_group(dataset)
    others = [g for g in groups if g.name != fields.GROUP]
    placed = {p for g in others if again or g.name not in MADE_BY_FIFTYONE for p in g.paths}
    mine = [n for n in names if n not in placed]
    for other in others:
        if set(mine) & set(other.paths):
            other.paths = [p for p in other.paths if p not in mine]
    ours = next((g for g in groups if g.name == fields.GROUP), None)
    if ours is None:
        at = next((k + 1 for k, g in enumerate(groups) if g.name == "tags"), 0)
        groups.insert(at, fo.SidebarGroupDocument(name=fields.GROUP, paths=mine))
    else:
        ours.paths = [*ours.paths, *(n for n in mine if n not in ours.paths)]
    dataset.app_config.sidebar_groups = groups


def follow(dataset: fo.Dataset) -> None:
    """Where the group is set up already, take new fields of ours into it: else they would appear among the others."""
    if _has_group(dataset):
        group(dataset)
        dataset.save()


def _has_group(dataset: fo.Dataset) -> bool:
    """Whether set-up has been here: a group of our name may be a person's own, one with fields of ours is not."""
    ours = {f.name for f in fields.SAMPLE_FIELDS}
    groups = dataset.app_config.sidebar_groups or []
    return any(g.name == fields.GROUP and ours & set(g.paths) for g in groups)


def _tick(dataset: fo.Dataset, label_field: str) -> None:
    """Add our fields to a list of ticked fields. A list of unticked ones says itself what is shown: it stays."""
    active = dataset.app_config.active_fields
    if active is not None and active.exclude:
        return
    ticked = list(active.paths) if active is not None else []
    if not ticked:  # FiftyOne ticks every label field then: a person's go on being shown
        default = fo.DatasetAppConfig.default_active_fields(dataset).paths
        ticked = [p for p in default if not p.startswith(fields.PREFIX)]
    wanted = [label_field, *SHOWN]
    more = [n for n in wanted if n not in ticked and dataset.has_sample_field(n)]
    dataset.app_config.active_fields = fo.ActiveFields(paths=[*ticked, *more])
