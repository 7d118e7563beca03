"""Every name that GSAL writes into a dataset: one table, the check against clashes, the clearing of our own output."""

from dataclasses import dataclass
from typing import Any

import fiftyone as fo

PREFIX = "gsal_"
UNMATCHED, BACKGROUND = "(unmatched)", "(background)"  # shown where a proposal has no concept; no graph names these
ROUND_TAG = "gsal_round_{:03d}"
GROUP = "GSAL"  # sidebar group


@dataclass(frozen=True)
class Field:
    """One field: its name, FiftyOne type, the embedded document or list element it holds, and what it means."""

    name: str
    kind: Any
    meaning: str
    document: type | None = None
    element: type | None = None
    owner: str = "score"  # which kind of run writes it


_E = fo.EmbeddedDocumentField
SAMPLE_FIELDS: tuple[Field, ...] = (
    Field("gsal_score", fo.FloatField, "Acquisition score A in standard deviations of the pool; higher = label first"),
    Field("gsal_rank", fo.IntField, "Place in the pool by gsal_score, 1 = label first"),
    Field(
        "gsal_difficulty",
        fo.FloatField,
        "Difficulty Z(G): how hard the image and its proposals are to reconstruct, in sd",
    ),
    Field("gsal_rarity", fo.FloatField, "Rarity Z(S): how little of the image's concepts has been labeled, in sd"),
    Field(
        "gsal_path",
        fo.ListField,
        "Concept nodes that the image's proposals look like, decisive path first",
        element=fo.StringField,
    ),
    Field("gsal_fine", _E, "Fine concept of the decisive proposal", document=fo.Classification),
    Field("gsal_coarse", _E, "Family of the decisive proposal's concept", document=fo.Classification),
    Field("gsal_abstract", _E, "Attributes of the decisive proposal's concept", document=fo.Classifications),
    Field("gsal_rationale", fo.StringField, "Why the image has its rank, in one sentence"),
    Field("gsal_proposals", _E, "Proposals with their difficulty and rarity; not labels", document=fo.Detections),
    Field("gsal_map", _E, "Where the diffusion model struggles; one scale for the whole pool", document=fo.Heatmap),
    Field("gsal_error", fo.StringField, "Why the image has no score"),
    Field("gsal_round", fo.IntField, "Round in which the image was selected for labeling", owner="select"),
    Field("gsal_status", fo.StringField, "Where the round's image is: picked, sent, or labeled", owner="select"),
    Field("gsal_sent", fo.DateTimeField, "When the image was handed to labelers last", owner="select"),
    Field("gsal_prelabels", _E, "Proposals handed to an annotation backend", document=fo.Detections, owner="select"),
)
PROPOSAL_FIELDS: tuple[Field, ...] = tuple(
    Field(f"gsal_proposals.detections.{name}", kind, meaning, element=element)
    for name, kind, meaning, element in (
        ("score", fo.FloatField, "Local score u of Eq. 9; the highest of an image is its decisive proposal", None),
        ("recon_error", fo.FloatField, "Reconstruction error E of Eq. 5", None),
        ("denoise_var", fo.FloatField, "Denoising variance V of Eq. 6", None),
        ("difficulty", fo.FloatField, "Difficulty of the proposal among all proposals of the pool, in sd", None),
        ("bonus", fo.FloatField, "Rarity bonus b of Eq. 4", None),
        ("coarse", fo.StringField, "Family of the assigned concept", None),
        ("abstract", fo.ListField, "Attributes of the assigned concept", fo.StringField),
        ("path", fo.ListField, "Fine, coarse and abstract nodes of the assigned concept", fo.StringField),
        ("prob", fo.FloatField, "Probability of the concept assignment", None),
        ("margin", fo.FloatField, "Its lead over the runner-up", None),
        ("source", fo.StringField, "Where the box is from: detector, field, grid, or whole image", None),
    )
)
LABEL_SOURCE = "gsal_source"
# On each Detections value that ingest writes, inside the label field: there they stay with their labels, whatever round
# is cancelled or run deleted. Not declared in the schema, so that the App shows the label field as it did.
SOURCE_FIELDS: tuple[Field, ...] = (
    Field("name", fo.StringField, "Label file, field or annotation run that the labels came from", owner="ingest"),
    Field("digest", fo.StringField, "SHA-256 of the label file or files; None where they were no file", owner="ingest"),
    Field("time", fo.DateTimeField, "When they were taken, UTC", owner="ingest"),
    Field("boxes", fo.IntField, "Boxes that were written; 0: the image was taken as empty", owner="ingest"),
    Field("ingest", fo.StringField, "Which call wrote them: the same for all labels of one ingest", owner="ingest"),
)
SCORE_FIELDS = tuple(f.name for f in SAMPLE_FIELDS if f.owner == "score")
SELECT_FIELDS = tuple(f.name for f in SAMPLE_FIELDS if f.owner == "select")
RANKED = ("gsal_score", "gsal_rank", "gsal_difficulty", "gsal_rarity")  # what every new ranking rewrites


def refuse_clash(dataset: fo.Dataset, owned: set[str]) -> None:
    """Raise ValueError where the dataset has a field of ours that no run of ours wrote, or one of another type.

    ``owned``: the field names that the dataset's GSAL run records claim.
    """
    schema = dataset.get_field_schema()
    for field in SAMPLE_FIELDS:
        found = schema.get(field.name)
        if found is None:
            continue
        if field.name not in owned:
            raise ValueError(
                f'dataset "{dataset.name}" already has a field {field.name} that GSAL did not write; rename it with '
                f'dataset.rename_sample_field("{field.name}", ...) and run again'
            )
        if not _is(found, field):
            raise ValueError(
                f'field {field.name} of dataset "{dataset.name}" is {_type_name(found)}, not {_wanted_name(field)}; '
                f"rename or delete it and run again"
            )


def add_schema(dataset: fo.Dataset, owner: str) -> None:
    """Declare the fields of one kind of run, so that the App's sidebar shows them; existing fields stay as they are."""
    for field in SAMPLE_FIELDS + (PROPOSAL_FIELDS if owner == "score" else ()):
        if field.owner == owner and dataset.get_field(field.name) is None:
            kwargs: dict[str, Any] = {"description": field.meaning}
            if field.document:
                kwargs["embedded_doc_type"] = field.document
            if field.element:
                kwargs["subfield"] = field.element
            dataset.add_sample_field(field.name, field.kind, **kwargs)


def clear(dataset: fo.Dataset, names: tuple[str, ...]) -> None:
    """Set our fields to None on every sample that has them; indexes and the sidebar stay."""
    schema = dataset.get_field_schema()
    if found := [name for name in names if name in schema]:
        dataset.clear_sample_fields(found)


def delete(dataset: fo.Dataset, names: tuple[str, ...]) -> None:
    """Remove our fields from the dataset."""
    schema = dataset.get_field_schema()
    dataset.delete_sample_fields([name for name in names if name in schema], error_level=2)


def _is(found: Any, field: Field) -> bool:
    if not isinstance(found, field.kind):
        return False
    if field.document:
        return bool(found.document_type is field.document)
    return field.element is None or isinstance(found.field, field.element)


def _type_name(found: Any) -> str:
    inner = getattr(found, "document_type", None) or type(getattr(found, "field", None))
    name = "" if inner is type(None) else inner.__name__
    return f"{type(found).__name__}({name})" if name else type(found).__name__


def _wanted_name(field: Field) -> str:
    inner = field.document or field.element
    name = inner.__name__ if inner else ""
    return f"{field.kind.__name__}({name})" if name else field.kind.__name__
