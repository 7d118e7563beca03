"""Our saved views: made once, then re-pointed in place. A person's views are never replaced, and none is deleted.

A view that is open in somebody's App must not go away: FiftyOne 1.22 answers with an error page then, also after a
reload. FiftyOne's own ``save_view(overwrite=True)`` deletes, whatever view has the same name or the same slug.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
from bson import json_util

OURS = "GSAL: "  # how the names of our saved views begin
COLOR = "#499CEF"
MARK = "GSAL keeps this view up to date."  # in the description: by it a view is known as ours
# Version 0.1.0 wrote no mark; its descriptions began so.
UNMARKED = {
    "top of pool": "The 200 best images that no round",
    "rare concepts": "Pool images that look like a rare concept",
    "hard but common": "Pool images above 1 sd of difficulty",
    "crops, hardest first": "Every proposal of the pool as a crop",
    "no proposals": "Pool images in which the detector found",
    "failed": "Images without a score, with the reason",
    "latest round": "Round ",
}


@dataclass(frozen=True)
class Wanted:
    """What a saved view of ours is to show: its ``view``, as ``patches`` of a field or as images, and what it says."""

    view: fo.DatasetView
    says: str
    patches: str | None = None
    sort: str | None = None  # of the patches, highest first

    def stages(self) -> list[dict[str, Any]]:
        """The view's stages as FiftyOne stores them. Patches are not made here: who opens the view makes them."""
        out: list[dict[str, Any]] = self.view._serialize(include_uuids=False)
        if self.patches:
            more = [as_patches(self.patches), fo.SortBy(self.sort, reverse=True)]
            out += [stage._serialize(include_uuid=False) for stage in more]
        return out


def as_patches(field: str) -> fo.ToPatches:
    """A field's boxes as patches that carry the image's other fields too: of fields that a view lacks the App forgets
    the place in the sidebar, and shows them elsewhere when the images come back."""
    return fo.ToPatches(field, other_fields=True)


def save(dataset: fo.Dataset, wanted: Mapping[str, Wanted], tell: Callable[[str], None]) -> list[str]:
    """Make our views or re-point them; ``tell`` hears of a name that a person's view has. Returns our views' names."""
    out = []
    for short, want in wanted.items():
        name, doc = OURS + short, _holder(dataset, OURS + short)
        if doc is not None and not _is_ours(doc, short):
            tell(
                f'"{name}" was not saved: your saved view "{doc.name}" has this name in the App\'s address; rename '
                f"yours and set up views again to have both"
            )
            continue
        if doc is None:
            dataset.save_view(name, want.view, description=f"{want.says}. {MARK}", color=COLOR)
            doc = _holder(dataset, name)
        _point(doc, want)
        out.append(name)
    return out


def point_again(dataset: fo.Dataset, wanted: Mapping[str, Wanted]) -> None:
    """Re-point those of our views that are there; none is made."""
    for short, want in wanted.items():
        doc = _holder(dataset, OURS + short)
        if doc is not None and _is_ours(doc, short):
            _point(doc, want)


def _holder(dataset: fo.Dataset, name: str) -> Any:
    """The document of the saved view that has this name or its slug, as the database has it now."""
    dataset._doc.reload("saved_views")
    slug = fou.to_slug(name)
    return next((d for d in dataset._doc.get_saved_views() if name == d.name or slug == d.slug), None)


def _is_ours(doc: Any, short: str) -> bool:
    says = doc.description or ""
    unmarked = doc.color == COLOR and says.startswith(UNMARKED[short])
    return doc.name == OURS + short and (MARK in says or unmarked)


def _point(doc: Any, want: Wanted) -> None:
    """Give a saved view of ours its stages and description of now; its id, name, slug and color stay."""
    stages = [json_util.dumps(stage) for stage in want.stages()]
    says = f"{want.says}. {MARK}"
    if doc.view_stages == stages and doc.description == says:
        return
    if want.patches:
        _let_go(doc)
    doc.view_stages, doc.description, doc.last_modified_at = stages, says, datetime.now(UTC)
    doc.save()


def _let_go(doc: Any) -> None:
    """Patches are a hidden dataset of FiftyOne's; of the old ones it may dispose when nobody shows them any more."""
    for stage in map(json_util.loads, doc.view_stages):
        state = dict(stage["kwargs"]).get("_state") or {}
        name = state.get("name")
        # A clone has the views of its original, whose patches are not ours to let go.
        if name and state.get("dataset_id") == str(doc.dataset_id) and fo.dataset_exists(name):
            fo.load_dataset(name).persistent = False
