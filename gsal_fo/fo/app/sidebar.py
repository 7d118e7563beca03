"""Our group in the App's sidebar."""

import fiftyone as fo

from gsal_fo.fo.dataset import fields


def group(dataset: fo.Dataset) -> None:
    """Put our fields into a group below the tags; a person's groups and their order stay. The caller saves."""
    names = [f.name for f in fields.SAMPLE_FIELDS if dataset.has_sample_field(f.name)]
    groups = list(dataset.app_config.sidebar_groups or fo.DatasetAppConfig.default_sidebar_groups(dataset))
    ours = next((g for g in groups if g.name == fields.GROUP), None)
    for other in groups:
        if other.name != fields.GROUP:
            other.paths = [p for p in other.paths if p not in names]
    if ours is None:
        at = next((k + 1 for k, g in enumerate(groups) if g.name == "tags"), 0)
        groups.insert(at, fo.SidebarGroupDocument(name=fields.GROUP, paths=names))
    else:
        ours.paths = [*ours.paths, *(n for n in names if n not in ours.paths)]
    dataset.app_config.sidebar_groups = groups


def follow(dataset: fo.Dataset) -> None:
    """Where the group is set up already, take new fields of ours into it: else they would appear among the others."""
    if any(g.name == fields.GROUP for g in dataset.app_config.sidebar_groups or []):
        group(dataset)
        dataset.save()
