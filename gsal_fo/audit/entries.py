"""The entries of a ledger: what each change of a round leaves there."""

import base64
import getpass
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import gsal_fo
from gsal_fo import config as cfg
from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.run_folder import embeddings
from gsal_fo.run_folder.cache import READ

SELECT, CANCEL, SENT, LABELS, ACCEPTED = KINDS = ("select", "cancel", "sent", "labels", "accepted")


def kind_of(entry: Mapping[str, Any]) -> str:
    """The kind of an entry, of those too that were written before kinds were."""
    if "kind" in entry:
        return str(entry["kind"])
    return CANCEL if "cancels" in entry else SELECT


def selection(run: Path, graph: ConceptGraph, ranking: Ranking, rows: Sequence[int], **about: Any) -> dict[str, Any]:
    """A batch was selected.

    Args:
        run: run folder of the scoring.
        graph: the graph that the ranking was asked with (a placebo shuffles it after that).
        ranking: the ranking that the picks came from.
        rows: picked rows of its table, in the order picked.
        about: plain values that name the round (tag, round number, budget).

    Returns:
        JSON-able: who, when (UTC), ``code``, ``rules``, ``params``, ``graph``, ``labels``; ``pool``, ``free`` and
        ``pickable`` (which images took part, got a rank, could be picked: one bit per image of the table, base64);
        ``thresholds``, ``picks`` (id, rank, score), ``files`` (SHA-256 of every file that the picks depend on).
    """
    table = ranking.table
    return {
        **about,
        **_written(SELECT),
        "params": cfg.to_dict(ranking.params),
        "graph": graph.to_dict(),
        "labels": {k: int(v) for k, v in sorted(ranking.labels.items())},
        "rules": ranking.rules,
        "pool": _packed(ranking.kept),
        "free": _packed(ranking.free),
        "pickable": _packed(ranking.pickable),
        "thresholds": {k: int(v) for k, v in ranking.thresholds.items()},
        "picks": [
            {"id": str(table.ids[r]), "rank": int(ranking.rank[r]) or None, "score": float(ranking.score[r])}
            for r in rows
        ],
        "files": file_digests(run, _stages(ranking, about.get("distinct"))),
    }


def cancellation(mark: str, **about: Any) -> dict[str, Any]:
    """A round was taken back; ``cancels``, ``mark``, is the hash of its selection's entry."""
    return {**about, **_written(CANCEL), "cancels": mark}


def hand_off(ids: Sequence[str], **about: Any) -> dict[str, Any]:
    """Images were sent to labelers; ``about`` says how and where to."""
    return {**about, **_written(SENT), "images": sorted(ids)}


def labels_taken(ids: Sequence[str], **about: Any) -> dict[str, Any]:
    """Labels of images were taken into the dataset; ``about`` says where from, with the digests of files."""
    return {**about, **_written(LABELS), "images": sorted(ids)}


def acceptance(problems: Sequence[str], rounds: Mapping[int, Mapping[str, Any]], **about: Any) -> dict[str, Any]:
    """What did not fit the ledger was looked at and holds from now on: the ``rounds`` as the dataset has them."""
    return {
        **about,
        **_written(ACCEPTED),
        "problems": list(problems),
        "rounds": {str(k): dict(v) for k, v in rounds.items()},
    }


def file_digests(run: Path, stages: Sequence[str] = READ) -> dict[str, str]:
    """Relative path -> SHA-256 of the manifest, the run's configuration, its result (digests of the models) and every
    part of the ``stages`` that ranking reads."""
    files = [run / name for name in ("manifest.parquet", "config.json", "assigned.json", "result.json")]
    for stage in stages:
        files += sorted((run / stage).glob("part-*.parquet"))
    return {path.relative_to(run).as_posix(): digest for path in files if (digest := file_digest(path)) is not None}


def stages_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages that a selection's entry has digests of."""
    embedded = any(name.startswith(f"{embeddings.STAGE}/") for name in entry["files"])
    return (*READ, embeddings.STAGE) if embedded else READ


def _stages(ranking: Ranking, distinct: Any) -> tuple[str, ...]:
    # Embeddings are the largest files by far: only a ranking that reads them waits for their digests.
    reads = distinct is not None or any(s.endswith("_embeddings") for s in ranking.strategy.needed())
    return (*READ, embeddings.STAGE) if reads else READ


def file_digest(path: Path) -> str | None:
    """SHA-256 of a file, read in pieces; None where there is none."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error


def _packed(images: np.ndarray) -> str:
    return base64.b64encode(np.packbits(images).tobytes()).decode()


def _written(kind: str) -> dict[str, str]:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"kind": kind, "who": _who(), "when": when, "code": gsal_fo.__version__}


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
