"""Fields of ours that no run record claims: every command would refuse them as a person's."""

import fiftyone as fo

from gsal_fo.fo import journal, progress, runs, steps
from gsal_fo.fo.dataset import fields, slices
from gsal_fo.fo.healing.finding import Cure, Finding, Findings


def findings(dataset: fo.Dataset) -> Findings:
    """Our fields, known by our description of them, where no record claims them and, of rounds, nothing is in them."""
    claimed, schema = runs.owned_fields(dataset), dataset.get_field_schema()
    ours = {
        f.name: f.owner
        for f in fields.SAMPLE_FIELDS
        if f.name in schema and f.name not in claimed and schema[f.name].description == f.meaning
    }
    for owner in ("score", "select"):
        names = tuple(name for name in ours if ours[name] == owner)
        # What the mark of an image means without a round is `marks`' to say.
        marked = owner == "select" and any(len(slices.flat(dataset).exists(name)) for name in names)
        if names and not marked:
            detail = f"{', '.join(names)} are there, and no run record claims them"
            yield Finding("fields without record", detail, "they are removed", act=_remove(names))


def _remove(names: tuple[str, ...]) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        held.apply(journal.request_of(command="mend", remove=names), [steps.remove_fields(names)], {})

    return act
