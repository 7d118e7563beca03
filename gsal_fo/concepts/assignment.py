"""From stored crop embeddings or posteriors to a concept per proposal: the assignment stage. NumPy over shards, no
model."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import (
    UNMATCHED,
    Assignment,
    Prototypes,
    assign_clip,
    assign_detector,
    background_embeddings,
    text_embeddings,
)
from gsal_fo.config import ConceptConfig, digest
from gsal_fo.run_folder import looks, shards

EncodeText = Callable[[list[str]], Any]
ROWS = 4096  # rows per assignment part


def labeled_to_embed(run: Path, graph: ConceptGraph, assign: str) -> set[str]:
    """Ids of labeled images whose crops the assignment needs: all for prototypes; for CLIP those with a label that
    the graph lacks (it is counted under the concept that CLIP sees); none for the detector's posterior."""
    if assign == "detector":
        return set()
    table = shards.read_manifest(run, ["id", "role", "labels", "boxes"])
    known = set(graph.fine)
    return {
        i
        for i, role, labels in zip(*(table[c].to_pylist() for c in ("id", "role", "labels")), strict=True)
        if role == "labeled" and labels and (assign == "prototypes" or set(labels) - known)
    }


def assign_run(
    run: Path,
    graph: ConceptGraph,
    config: ConceptConfig,
    *,
    classes: list[str],
    encode_text: EncodeText | None = None,
    scale: float = 100.0,
) -> dict[str, Any]:
    """Write the ``assignment`` parts of a run folder and ``assigned.json``.

    Args:
        run: run folder with proposals and, but for ``assign="detector"``, concepts parts.
        graph: the concept graph.
        config: how to assign.
        classes: the detector's classes in the order of its posterior.
        encode_text: CLIP's text encoder, for ``assign="clip"``.
        scale: CLIP's logit scale.

    Returns:
        What ``assigned.json`` holds: ``assign``, ``prototypes`` (labeled crops behind each), ``limit``, ``unknown``
        ({label outside the graph: {fine: crops}}) and ``embedded`` labels that could not be counted.

    Raises:
        ValueError: where the method cannot work on this run; the sentence says what to use instead.
    """
    manifest = shards.read_manifest(run, ["id", "role", "labels", "boxes"])
    labels, drawn = {}, {}
    for row in shards.table_rows(manifest):
        if row["role"] == "labeled":
            labels[row["id"]] = list(row["labels"] or [])
            drawn[row["id"]] = np.asarray([] if row["boxes"] is None else row["boxes"], np.float32).reshape(-1, 4)
    facts: dict[str, Any] = {"assign": config.assign, "fine": graph.fine}
    one: Callable[[dict[str, Any]], Assignment]
    if config.assign == "detector":
        if not classes:
            raise ValueError(
                'assign="detector" needs a trained detector; use "clip" or "prototypes", or train one first'
            )
        stage = "proposals"

        def one(row: dict[str, Any]) -> Assignment:
            count = len(row["boxes"]) // 4
            if not len(row["posterior"]):
                return _unmatched(count)
            return assign_detector(row["posterior"].reshape(count, -1), classes, graph.fine, config.floor)
    elif config.assign == "prototypes":
        stage = "concepts"
        prototypes = labeled_prototypes(run, graph, labels)
        facts["prototypes"] = {graph.fine[f]: int(n) for f, n in zip(prototypes.fine, prototypes.counts, strict=True)}
        facts["limit"] = prototypes.limit if np.isfinite(prototypes.limit) else None

        def one(row: dict[str, Any]) -> Assignment:
            return prototypes.assign(_vectors(row))
    elif config.assign == "auto":
        raise ValueError('assign="auto" must be decided first, by gsal_fo.choosing.choose')
    else:
        if encode_text is None:
            raise ValueError('assign="clip" needs the CLIP model\'s text encoder')
        stage = "concepts"
        text = text_embeddings(graph, encode_text)
        background = background_embeddings(graph, encode_text)

        def one(row: dict[str, Any]) -> Assignment:
            return assign_clip(_vectors(row), text, background, scale)

    # The manifest's labels shape prototypes, so another labeled set is another assignment.
    mark = digest(config, graph.to_dict(), sorted(labels.items()) if config.assign == "prototypes" else None)
    for path in (run / "assignment").glob("part-*.parquet"):
        path.unlink()  # cheap to redo, and a half-written stage of another labeled set must not stay
    looks.clear(run)
    unknown: dict[str, Counter[str]] = {}
    waiting: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    for row in _rows(run, stage):
        if row["role"] == "labeled":
            names = labels[row["id"]]
            strange = [k for k, name in enumerate(names) if name not in graph.fine]
            fine = [looks.FAILED] * len(names) if row["error"] or not strange else one(row).fine
            _count_unknown(unknown, names, fine, graph)
            if strange:
                boxes = drawn[row["id"]][strange]
                seen.append(looks.row(row["id"], boxes, [fine[k] for k in strange], row["error"]))
        elif row["error"]:
            waiting.append({"id": row["id"], "role": row["role"], "error": row["error"]})
        else:
            got = one(row)
            waiting.append({"id": row["id"], "role": "pool", "fine": got.fine, "prob": got.prob, "margin": got.margin})
        if len(waiting) >= ROWS:
            shards.write_part(run, "assignment", waiting, digest=mark)
            waiting = []
    if waiting:
        shards.write_part(run, "assignment", waiting, digest=mark)
    looks.write(run, seen, digest=mark)
    facts["unknown"] = {label: dict(sorted(counts.items())) for label, counts in sorted(unknown.items())}
    outside = {name for names in labels.values() for name in names} - set(graph.fine)
    facts["uncounted"] = sorted(outside - set(unknown))
    shards.write_record(facts, run / "assigned.json")
    return facts


def _rows(run: Path, stage: str) -> Iterator[dict[str, Any]]:
    for row in shards.iter_rows(run, stage):
        yield {"role": "pool", **row}


def _vectors(row: dict[str, Any]) -> np.ndarray:
    return row["embeddings"].reshape(-1, max(1, row["dim"])).astype(np.float32)


def _unmatched(count: int) -> Assignment:
    nan = np.full(count, np.nan, np.float32)
    return Assignment(np.full(count, UNMATCHED, np.int16), nan, nan)


def labeled_prototypes(run: Path, graph: ConceptGraph, labels: dict[str, list[str]]) -> Prototypes:
    """Prototypes of a run's labeled crops; ``labels``: labeled image -> one name per box."""
    vectors: list[np.ndarray] = []
    names: list[str] = []
    for row in shards.iter_rows(run, "concepts"):
        if row["role"] == "labeled" and not row["error"]:
            vectors += list(_vectors(row))
            names += labels[row["id"]]
    return Prototypes.fit(np.stack(vectors) if vectors else np.empty((0, 1)), names, graph.fine)


def _count_unknown(
    unknown: dict[str, Counter[str]], names: list[str], fine: Sequence[int] | np.ndarray, graph: ConceptGraph
) -> None:
    for name, index in zip(names, fine, strict=True):
        if name not in graph.fine and index >= 0:
            unknown.setdefault(name, Counter())[graph.fine[index]] += 1
