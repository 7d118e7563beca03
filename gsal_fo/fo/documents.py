"""Rows of a ranking as MongoDB documents, in the form in which FiftyOne stores its own labels.

Making 100,000 ``fo.Detection`` objects takes longer than everything else that a scoring writes, so the labels are made
as plain dictionaries over a template of FiftyOne's own class.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId

from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.concepts.similarity import UNMATCHED
from gsal_fo.fo.dataset import fields


def number(value: Any) -> float | None:
    """A plain float, None where it is not finite: MongoDB would sort NaN below all, and JSON has none."""
    return float(value) if value is not None and math.isfinite(value) else None


class Documents:
    """What the fields of one ranking's images hold, as plain values by field."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self._concepts: dict[int, tuple[str, list[str]]] = {}

    def ranked(self, row: int) -> dict[str, Any]:
        """The fields of an image that depend on labels and constants."""
        ranking, table = self.ranking, self.ranking.table
        rank = int(ranking.rank[row]) or None
        decisive = int(ranking.scores.decisive[row])
        order = [decisive, *self.members(row)] if decisive >= 0 else self.members(row)
        nodes = dict.fromkeys(node for j in order for node in self.concept(int(table.fine[j]))[1])
        scores, free = ranking.scores, bool(ranking.free[row])  # in a round: not to be labeled first, so no place
        out: dict[str, Any] = {
            "gsal_score": number(ranking.score[row]) if free else None,
            "gsal_rank": rank,
            "gsal_difficulty": number(scores.difficulty[row]) if free else None,
            "gsal_rarity": number(scores.rarity[row]) if free else None,
            "gsal_rationale": ranking.sentence(row) if rank else None,
            "gsal_path": list(nodes),
            "gsal_fine": None,
            "gsal_coarse": None,
        }
        attributes: list[str] = []
        if decisive >= 0:
            fine = int(table.fine[decisive])
            name, path = self.concept(fine)
            out["gsal_fine"] = _label(self._classification, label=name, confidence=number(table.prob[decisive]))
            if fine >= 0:
                out["gsal_coarse"] = _label(self._classification, label=path[1])
                attributes = path[2:]
        each = [_label(self._classification, label=a) for a in attributes]
        out["gsal_abstract"] = {"_cls": "Classifications", "classifications": each}
        return out

    def proposals(self, row: int) -> dict[str, Any]:
        """The image's proposals as one Detections document."""
        table, columns = self.ranking.table, self._columns
        source = str(table.source[row])
        boxes = []
        for j in self.members(row):
            name, path = self.concept(int(table.fine[j]))
            boxes.append(
                _label(
                    self._detection,
                    label=name,
                    bounding_box=table.boxes[j].tolist(),
                    coarse=path[1] if len(path) > 1 else None,
                    abstract=path[2:],
                    path=path,
                    source=source,
                    **{key: values[j] for key, values in columns.items()},
                )
            )
        return {"_cls": "Detections", "detections": boxes}

    def numbers(self, row: int) -> list[dict[str, Any]]:
        """The numbers of the image's proposals that a new ranking changes, by their place in the list."""
        columns = self._columns
        return [{name: columns[name][j] for name in ("score", "difficulty", "bonus")} for j in self.members(row)]

    def members(self, row: int) -> range:
        """Positions of an image's proposals; the table holds them side by side."""
        return range(self._first[row], self._first[row + 1])

    def concept(self, fine: int) -> tuple[str, list[str]]:
        """Shown name and path of an assigned index; what matches no concept can be filtered by that."""
        if fine not in self._concepts:
            graph = self.ranking.graph
            if fine >= 0:
                found = (str(graph.fine[fine]), list(graph.path(graph.fine[fine])))
            elif fine == UNMATCHED:
                found = (fields.UNMATCHED, [fields.UNMATCHED])
            else:
                found = (fields.BACKGROUND, [])
            self._concepts[fine] = found
        return self._concepts[fine]

    @cached_property
    def _first(self) -> list[int]:
        table = self.ranking.table
        return np.searchsorted(table.proposal_image, np.arange(len(table.ids) + 1)).tolist()

    @cached_property
    def _columns(self) -> dict[str, list[float | None]]:
        """The proposals' numbers as plain lists: picking single NumPy elements would take most of the time."""
        table, scores = self.ranking.table, self.ranking.scores
        return {
            "confidence": _plain(table.proposal_score),
            "score": _plain(scores.value),
            "recon_error": _plain(table.proposal_error),
            "denoise_var": _plain(table.proposal_variance),
            "difficulty": _plain(scores.proposal),
            "bonus": _plain(self.ranking.bonus),
            "prob": _plain(table.prob),
            "margin": _plain(table.margin),
        }

    @cached_property
    def _detection(self) -> dict[str, Any]:
        return dict(fo.Detection().to_dict())

    @cached_property
    def _classification(self) -> dict[str, Any]:
        return dict(fo.Classification().to_dict())


def heatmap(path: str) -> dict[str, Any]:
    """A stored error map as a Heatmap document; 8 bit, one scale for the pool."""
    return dict(fo.Heatmap(map_path=path, range=[0, 255]).to_dict())


def _label(template: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A label of its own id. Its lists and mappings are not shared with the template's: nothing here changes them."""
    return {**template, "_id": ObjectId(), **values}


def _plain(values: Sequence[float] | np.ndarray) -> list[float | None]:
    array = np.asarray(values, dtype=np.float64)
    out: list[float | None] = array.tolist()
    for j in np.flatnonzero(~np.isfinite(array)):
        out[j] = None
    return out
