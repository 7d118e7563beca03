"""What a selection and its cancelling leave in the ledger, and the proof that its picks follow from what is stored."""

import base64
import getpass
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import gsal_fo
from gsal_fo import config as cfg
from gsal_fo.acquisition.ranking import PoolTable, Ranking, load_pool, pick, rank
from gsal_fo.audit import ledger
from gsal_fo.concepts.graph import ConceptGraph

SCORE_TOLERANCE = 1e-9  # of a recomputed score: other machines add in another order


def entry_of(run: Path, graph: ConceptGraph, ranking: Ranking, rows: Sequence[int], **about: Any) -> dict[str, Any]:
    """The ledger entry of one selection.

    Args:
        run: run folder of the scoring.
        graph: the graph that the ranking was asked with (a placebo shuffles it after that).
        ranking: the ranking that the picks came from.
        rows: picked rows of its table, in the order picked.
        about: plain values that name the round (tag, round number, budget, dataset).

    Returns:
        JSON-able: who, when (UTC), ``code``, ``params``, ``graph``, ``labels``, ``pool`` (which images took part: one
        bit per image of the table, base64), ``thresholds``, ``picks`` (id, rank, score), ``files`` (SHA-256 of every
        file that the picks depend on).
    """
    table = ranking.table
    return {
        **about,
        "who": _who(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": gsal_fo.__version__,
        "params": cfg.to_dict(ranking.params),
        "graph": graph.to_dict(),
        "labels": {k: int(v) for k, v in sorted(ranking.labels.items())},
        "pool": base64.b64encode(np.packbits(ranking.kept).tobytes()).decode(),
        "thresholds": {k: int(v) for k, v in ranking.thresholds.items()},
        "picks": [
            {"id": str(table.ids[r]), "rank": int(ranking.rank[r]) or None, "score": float(ranking.scores.score[r])}
            for r in rows
        ],
        "files": file_digests(run),
    }


def cancellation(selection: str, **about: Any) -> dict[str, Any]:
    """The ledger entry that takes back a round: who, when, and ``cancels``, the hash of the selection's entry."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {**about, "cancels": selection, "who": _who(), "when": when, "code": gsal_fo.__version__}


def is_cancelled(run: Path, selection: str) -> bool:
    """Whether a run folder's ledger says that the selection with this hash was taken back."""
    return any(e.get("cancels") == selection for e in ledger.read(run).entries)


def file_digests(run: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of the manifest, the run's configuration, its result (digests of the models) and every
    part that ranking reads."""
    files = [run / name for name in ("manifest.parquet", "config.json", "assigned.json", "result.json")]
    for stage in ("proposals", "difficulty", "assignment"):
        files += sorted((run / stage).glob("part-*.parquet"))
    out = {}
    for path in files:
        if path.is_file():
            with path.open("rb") as stream:
                out[path.relative_to(run).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return out


def verify(run: Path, recorded: Mapping[str, str] | None = None) -> list[str]:
    """Everything in a run folder that does not fit its ledger, one sentence each; empty when all is as it was.

    The chain of hashes, the digests of the files, and the picks, derived again from the stored statistics.

    Args:
        run: run folder of a scoring.
        recorded: {tag: hash} as the dataset's own run records hold them; entries that are gone or differ are named.

    Raises:
        ValueError: the folder has no ledger, and nobody says that it should hold anything.
    """
    known = ledger.read(run)
    if not known.entries and not known.problems and not recorded:
        raise ValueError(f"{run} has no {ledger.NAME}; there is nothing to verify before the first selection")
    out = list(known.problems)
    # By hash, not by tag: a cloned dataset selects from the same run folder, and both may call a round the first.
    tags = {str(e.get("tag")) for e in known.entries}
    hashes = {str(e["hash"]) for e in known.entries}
    for tag, mark in (recorded or {}).items():
        if mark not in hashes:
            what = f"the entry of {tag} is not the one that the dataset records"
            if tag not in tags:
                what = f"the dataset records the selection {tag}, and its entry is gone"
            out.append(f"{run / ledger.NAME}: {what}")
    now = file_digests(run)
    for entry in known.entries:
        name = f"entry {entry['seq']} ({entry.get('tag')})"
        if "cancels" in entry:  # the selection that it takes back is still proven: it happened
            if entry["cancels"] not in hashes:
                out.append(f"{name}: cancels a selection that the ledger does not hold")
            continue
        try:
            changed = list(_changed(entry["files"], now))
            out += [f"{name}: {text}" for text in changed]
            out += [f"{name}: {text}" for text in _derived(run, entry)]
        except (KeyError, TypeError, ValueError) as error:
            out.append(f"{name}: its picks cannot be derived again ({' '.join(str(error).split())})")
    return out


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*then, *now}):
        if path not in now:
            yield f"{path} is gone"
        elif path not in then:
            yield f"{path} was not there at the selection"
        elif then[path] != now[path]:
            yield f"{path} was altered since the selection"


def derive(run: Path, entry: Mapping[str, Any]) -> tuple[Ranking, list[int]]:
    """The ranking of an entry and the rows picked, again from what the run folder holds; no hash is read.

    Raises:
        ValueError: the entry does not fit the folder (ShardError where the folder itself is broken).
    """
    ranking = ranking_of(load_pool(run), entry)
    return ranking, pick(ranking, len(entry["picks"]))


def ranking_of(table: PoolTable, entry: Mapping[str, Any]) -> Ranking:
    """The ranking of an entry, from the statistics of its run; raises ValueError where they do not fit together."""
    bits = np.frombuffer(base64.b64decode(entry["pool"]), dtype=np.uint8)
    if len(bits) != -(-len(table.ids) // 8):
        raise ValueError(f"it speaks of another number of images than the {len(table.ids)} that are stored")
    keep = np.unpackbits(bits, count=len(table.ids)).astype(bool)
    graph = ConceptGraph.from_dict(entry["graph"], source="the ledger's graph")
    return rank(table, graph, entry["labels"], cfg.from_dict(cfg.GsalParams, entry["params"]), keep=keep)


def _derived(run: Path, entry: Mapping[str, Any]) -> Iterator[str]:
    ranking, rows = derive(run, entry)
    table = ranking.table
    thresholds = {k: int(v) for k, v in ranking.thresholds.items()}
    if thresholds != entry["thresholds"]:
        yield f"thresholds are {thresholds} by the stored data, and the entry says {entry['thresholds']}"
    for place, (row, said) in enumerate(zip(rows, entry["picks"], strict=True), 1):
        sample_id, score = str(table.ids[row]), float(ranking.scores.score[row])
        if sample_id != said["id"]:
            yield f"pick {place} is {sample_id} by the stored data, and the entry says {said['id']}"
        elif abs(score - said["score"]) > SCORE_TOLERANCE * max(1.0, abs(score)):
            yield f"pick {place}, {sample_id}, scores {score!r} by the stored data; the entry says {said['score']!r}"
        elif said["rank"] != (int(ranking.rank[row]) or None):
            yield f"pick {place}, {sample_id}, has rank {ranking.rank[row]}, and the entry says {said['rank']}"


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
