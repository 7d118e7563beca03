"""Run records: what was run on a dataset, with which constants, and what a deleted run takes with it.

FiftyOne stores the path of these classes in the dataset, so they keep their names and their place.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import fiftyone.core.runs as fos

from gsal_fo.fo.dataset import fields, slices

SCORE, SELECT, HANDOFF = "gsal_score", "gsal_select", "gsal_handoff"  # the runs' methods


class GSALScoreRunConfig(fos.RunConfig):
    """One scoring: configs, digests, label counts, coverage, thresholds, run folder."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"method": SCORE} | kwargs)


class GSALScoreRun(fos.Run):
    """Owns the score fields while it is the run that wrote them last."""

    def get_fields(self, samples: Any, key: str) -> list[str]:
        """The dataset's fields that this run wrote."""
        dataset = samples._root_dataset
        if writer(dataset) != key:
            return []
        return [f for f in fields.SCORE_FIELDS if dataset.has_sample_field(f)]

    def cleanup(self, samples: Any, key: str) -> None:
        """Remove the fields that this run wrote; a later scoring has taken them over where it wrote them again."""
        from gsal_fo.fo import deleting  # FiftyOne calls this, and deleting needs the records of this module

        deleting.scoring(samples._root_dataset, key)

    def rename(self, samples: Any, key: str, new_key: str) -> None:
        """Keep the fields with their run."""
        if writer(samples._root_dataset) == key:
            mark_writer(samples._root_dataset, new_key)


class GSALSelectRunConfig(fos.RunConfig):
    """One selection: budget, constants, coverage before it, the round; its picks are the run's results."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"method": SELECT} | kwargs)


class GSALSelectRun(fos.Run):
    """Owns one round: its tag, and what its images have in ``gsal_round``, ``gsal_sent`` and ``gsal_status``."""

    def get_fields(self, samples: Any, key: str) -> list[str]:
        """The dataset's fields that this run wrote."""
        return [f for f in fields.SELECT_FIELDS if samples._root_dataset.has_sample_field(f)]

    def cleanup(self, samples: Any, key: str) -> None:
        """Take the round back as `cancel` does."""
        from gsal_fo.fo import deleting

        deleting.selection(samples._root_dataset, key)


class GSALSelectRunResults(fos.RunResults):
    """``picks``: one dict per selected image, best first (id, rank, score, rationale)."""


class GSALHandoffRunConfig(fos.RunConfig):
    """One hand-off to labelers: an export or an annotation run; what was sent is the run's results."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"method": HANDOFF} | kwargs)


class GSALHandoffRun(fos.Run):
    """Owns no field: it stays when its round is cancelled, since the labels may still come back."""


class GSALHandoffRunResults(fos.RunResults):
    """``sent``: one dict per image (id, width, height, boxes), as `gsal_fo.fo.exchange.handoffs` keeps it."""


def score_keys(dataset: fo.Dataset) -> list[str]:
    """Keys of the dataset's scorings, oldest first."""
    return _keys(dataset, SCORE)


def select_keys(dataset: fo.Dataset) -> list[str]:
    """Keys of the dataset's selections, oldest first."""
    return _keys(dataset, SELECT)


def handoff_keys(dataset: fo.Dataset) -> list[str]:
    """Keys of the dataset's hand-offs to labelers, oldest first."""
    return _keys(dataset, HANDOFF)


def load(dataset: fo.Dataset, key: str | None = None) -> Any:
    """The record of a GSAL run (None: of the latest scoring); its ``.key`` and ``.config`` hold what it was.

    Raises:
        ValueError: there is no such run.
    """
    scorings = score_keys(dataset)
    if key is None and not scorings:
        raise ValueError(f'dataset "{dataset.name}" has no GSAL scoring yet; run score first')
    known = scorings + select_keys(dataset)
    if key is not None and key not in known:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f'dataset "{dataset.name}" has no GSAL run "{key}"; {has}')
    return dataset.get_run_info(key or scorings[-1])


def scoring_of(samples: Any, key: str | None = None) -> Any:
    """The record of a scoring. None: the latest, of a view of a grouped dataset the latest that its slices were in.

    Raises:
        ValueError: there is no such scoring, or the key is that of a selection.
    """
    dataset = samples._root_dataset
    if key is None and (names := slices.of(samples)) is not None:
        known = {k: getattr(load(dataset, k).config, "slices", None) or [] for k in score_keys(dataset)}
        found = [k for k, scored in known.items() if set(names) & set(scored)]
        if known and not found:
            those = ", ".join(f"{k}: {', '.join(scored)}" for k, scored in known.items())
            raise ValueError(
                f'no scoring of dataset "{dataset.name}" has images of slice {", ".join(names)} ({those}); score that '
                f"slice first"
            )
        key = found[-1] if found else None
    info = load(dataset, key)
    if info.config.method != SCORE:
        those = ", ".join(score_keys(dataset))
        raise ValueError(f'run "{info.key}" is a selection, not a scoring; choose one of {those}')
    return info


def picks(dataset: fo.Dataset, key: str) -> list[dict[str, Any]]:
    """What a selection picked, best first."""
    results = dataset.load_run_results(key, cache=False, load_view=False)
    return [dict(p) for p in results.picks] if results is not None else []


def writer(dataset: fo.Dataset) -> str | None:
    """Key of the scoring whose values the score fields hold now."""
    field = dataset.get_field("gsal_score")
    return (field.info or {}).get("gsal_run") if field is not None else None


def mark_writer(dataset: fo.Dataset, key: str) -> None:
    """Note in ``gsal_score`` itself which scoring wrote it: the note goes where the field goes, and with it."""
    field = dataset.get_field("gsal_score")
    field.info = {"gsal_run": key}
    field.save()


def owned_fields(dataset: fo.Dataset) -> set[str]:
    """The field names that the dataset's GSAL runs claim."""
    out: set[str] = set()
    for key in score_keys(dataset) + select_keys(dataset):
        out.update(getattr(dataset.get_run_info(key).config, "fields", ()))
    return out


def next_key(dataset: fo.Dataset, method: str, taken: Iterable[str] = ()) -> str:
    """The next free key ``<method>_NNN``; ``taken``: keys that are in use elsewhere, such as run folders."""
    used = [re.fullmatch(rf"{method}_(\d+)", key) for key in {*dataset.list_runs(), *taken}]
    return f"{method}_{max((int(m[1]) for m in used if m), default=0) + 1:03d}"


def ledger_head(dataset: fo.Dataset, key: str) -> dict[str, Any] | None:
    """What the dataset remembers of the ledger of a scoring, from the database: another process may have written it
    after this one has read the record."""
    doc = fo.Run._get_run_doc(dataset, key)
    found = foo.get_db_conn()[doc._get_collection_name()].find_one({"_id": doc.id}, {"config.ledger_head": 1})
    head = ((found or {}).get("config") or {}).get("ledger_head")
    return dict(head) if head else None


def set_ledger_head(dataset: fo.Dataset, key: str, head: Mapping[str, Any]) -> None:
    """Keep what the dataset remembers of the ledger of a scoring; nothing else of the record is written."""
    doc = fo.Run._get_run_doc(dataset, key)
    collection = foo.get_db_conn()[doc._get_collection_name()]
    collection.update_one({"_id": doc.id}, {"$set": {"config.ledger_head": dict(head)}})
    doc.config["ledger_head"] = dict(head)


def pairs(values: Mapping[str, Any]) -> list[list[Any]]:
    """A mapping by label as pairs: MongoDB refuses keys with dots or dollar signs, and labels may have them."""
    return [[k, v] for k, v in values.items()]


def _keys(dataset: fo.Dataset, method: str) -> list[str]:
    # FiftyOne's own list_runs(method=...) copies every record whole, and a panel's event asks a dozen times.
    docs = fos.Run._get_run_docs(dataset)
    return [key for _, key in sorted((d.timestamp, k) for k, d in docs.items() if d.config.get("method") == method)]
