"""A page for an auditor: per pick its picture, crop, error map, path, terms and sentence; and who came next and why."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.acquisition.runner_up import best_left, reason
from gsal_fo.audit import ledger, verify
from gsal_fo.images import ImageError, open_upright
from gsal_fo.pages import files
from gsal_fo.pages.pictures import CROP, SIDE, cut, inline, rect
from gsal_fo.run_folder import error_maps, shards


def write(
    out: Path, run: Path, problems: Sequence[str], *, tags: Iterable[str] | None = None, force: bool = False
) -> int:
    """Write the page about the selections in a run folder's ledger, derived again from what is stored.

    Args:
        out: the HTML file; one self-contained file that needs no network.
        run: run folder.
        problems: what ``audit.verify`` said of it; shown first.
        tags: rounds to show; None shows all.
        force: replace a file that is not ours.

    Returns:
        How many picks the page shows.

    Raises:
        ValueError: ``out`` cannot be written, as ``files.write_new``, or no entry has one of the tags.
    """
    files.check_new(out, force=force)
    wanted = set(tags) if tags is not None else None
    known = ledger.read(run).entries
    entries = [e for e in known if "picks" in e and (wanted is None or e.get("tag") in wanted)]
    gone = {str(e["cancels"]): e for e in known if "cancels" in e}
    if not entries:
        there = ", ".join(str(e.get("tag")) for e in known) or "none"
        raise ValueError(f"{run / ledger.NAME} has no selection {sorted(wanted or [])}; it has {there}")
    paths = dict(zip(*shards.read_manifest(run, ["id", "filepath"]).to_pydict().values(), strict=True))

    def parts() -> Iterator[str]:  # round by round: pictures of one round at most in memory
        yield HEAD
        yield _verdict(run, problems)
        for entry in entries:
            yield from _round(run, entry, paths, gone.get(entry["hash"]))
        yield "</main></body></html>\n"

    files.write_new(out, parts(), force=force)
    return sum(len(e["picks"]) for e in entries)


def _verdict(run: Path, problems: Sequence[str]) -> str:
    if not problems:
        text = "Hashes, files and picks agree with what is stored: nothing was altered."
        return f'<h1>Audit of a selection</h1><p class="good">{text}</p><p class="note">{escape(str(run))}</p>'
    lines = "".join(f"<li>{escape(p)}</li>" for p in problems)
    return f'<h1>Audit of a selection</h1><div class="bad">Altered since the selection:<ul>{lines}</ul></div>'


def _round(
    run: Path, entry: Mapping[str, Any], paths: Mapping[str, str], gone: Mapping[str, Any] | None
) -> Iterator[str]:
    title = f"{entry.get('tag')}: {len(entry['picks'])} images"
    yield f"<h2>{escape(title)}</h2>{_about(run, entry)}"
    if gone:
        by = f"{gone.get('who')}, {gone.get('when')}, gsal-fo {gone.get('code')}"
        yield f'<p class="bad">This round was cancelled later, by {escape(by)}.</p>'
    try:
        ranking, rows = verify.derive(run, entry)
    except (KeyError, TypeError, ValueError) as error:
        yield f'<p class="bad">The picks cannot be derived again: {escape(str(error))}.</p>'
        return
    left = best_left(ranking, rows)
    maps = _maps(run, [str(ranking.table.ids[r]) for r in [*rows, *([] if left is None else [left])]])
    yield '<div class="cards">'
    for place, row in enumerate(rows, 1):
        yield _card(ranking, row, paths, maps, f"pick {place}", "")
    yield "</div><h3>The best image that was not picked</h3>"
    why = f'<p class="why">{escape(reason(ranking, rows))}</p>'
    yield (
        f'<div class="cards">{_card(ranking, left, paths, maps, "not picked", why)}</div>' if left is not None else why
    )


def _about(run: Path, entry: Mapping[str, Any]) -> str:
    """What was asked, by whom, and the state of the labels then."""
    graded = entry["params"].get("rarity") == "graded"
    result = run / "result.json"
    choice = (shards.run_facts(run, result.name).get("choice") or {}) if result.is_file() else {}
    params = ", ".join(f"{k} {v}" for k, v in entry["params"].items())
    labels = ", ".join(f"{k} {v}" for k, v in entry["labels"].items()) or "none"
    thresholds = ", ".join(f"{k} {v}" for k, v in entry["thresholds"].items())
    rows = {
        "selected by": f"{entry.get('who')}, {entry.get('when')}, gsal-fo {entry.get('code')}",
        "settings": params,
        "labels counted then": labels,
        **({} if graded else {"rare at or below": thresholds}),
        **({"assignment": choice["why"]} if choice else {}),
        "models, graph and pool": ", ".join(f"{k} {v}" for k, v in (entry.get("digests") or {}).items()) or "see files",
        "entry": f"{entry['seq']}, hash {entry['hash']}",
    }
    cells = "".join(f"<tr><th>{k}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
    return f'<table class="about">{cells}</table>'


def _card(
    ranking: Ranking,
    row: int,
    paths: Mapping[str, str],
    maps: Mapping[str, Image.Image],
    title: str,
    why: str,
) -> str:
    table, facts = ranking.table, ranking.facts(row)
    sample_id = str(table.ids[row])
    path = Path(paths[sample_id])
    head = f"<h4>{escape(title)}: {escape(path.name)}</h4><p class='note'>{escape(sample_id)}</p>"
    pictures = _pictures(ranking, row, path, maps.get(sample_id))
    said = f"<p>{escape(ranking.sentence(row))}</p>{why}"
    return f"<article>{head}{pictures}{said}{_terms(ranking, row)}{_indicators(facts)}</article>"


def _pictures(ranking: Ranking, row: int, path: Path, error_map: Image.Image | None) -> str:
    """The image with its proposals, the decisive crop and the error map."""
    try:
        image = open_upright(path)
    except ImageError as error:
        return f'<p class="bad">{escape(str(error))}</p>'
    table, decisive = ranking.table, int(ranking.scores.decisive[row])
    own = np.flatnonzero(table.proposal_image == row)
    boxes = [
        rect(
            table.boxes[j],
            "decisive" if j == decisive else "proposal",
            f"proposal {n}: {ranking.scores.proposal[j]:+.2f} sd",
        )
        for n, j in enumerate(own, 1)
    ]
    parts = [
        f'<div class="picture"><img alt="image" src="{inline(image, SIDE)}">'
        f'<svg viewBox="0 0 1 1" preserveAspectRatio="none">{"".join(boxes)}</svg></div>'
    ]
    if decisive >= 0:
        closer = inline(cut(image, table.boxes[decisive].tolist()), CROP)
        parts.append(
            f'<figure><img alt="decisive crop" src="{closer}"><figcaption>decisive proposal</figcaption></figure>'
        )
    if error_map is not None:
        parts.append(_figure("error map", inline(error_map.resize(image.size, Image.Resampling.BICUBIC), CROP)))
    return f'<div class="pictures">{"".join(parts)}</div>'


def _figure(title: str, source: str) -> str:
    return f'<figure><img alt="{title}" src="{source}"><figcaption>{title}</figcaption></figure>'


def _terms(ranking: Ranking, row: int) -> str:
    """The numbers behind the place of a ranked image."""
    if not ranking.rank[row]:
        return ""
    found = ranking.strategy.quantities(ranking.declared, ranking.context, ranking.ranked, row)
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{v:+.3f}</td></tr>" for k, v in found)
    return f'<table class="terms">{cells}</table>'


def _indicators(facts: Mapping[str, Any]) -> str:
    if not facts.get("indicators"):
        return ""
    graded = facts["rarity_rule"] == "graded"

    def says(i: Mapping[str, Any]) -> str:
        if not i["used"]:
            return "not used"
        return f"{i['value']:.2f}" if graded else "fired" if i["fired"] else "no"

    rows = "".join(
        f"<tr><td>{escape(i['node'])}</td><td>{i['level']}</td><td>{i['count']}</td><td>{i['threshold']}</td>"
        f"<td>{says(i)}</td></tr>"
        for i in facts["indicators"]
    )
    columns = ("most of its level", "rarity") if graded else ("threshold", "rare")
    head = f"<tr><th>concept</th><th>level</th><th>labeled</th><th>{columns[0]}</th><th>{columns[1]}</th></tr>"
    return f'<table class="indicators">{head}{rows}</table>'


def _maps(run: Path, ids: Sequence[str]) -> dict[str, Image.Image]:
    """Error maps of these images, on the scale of the whole run."""
    low, high = error_maps.scale(run)
    wanted = set(ids)
    found = ((i, cells) for i, cells in error_maps.read(run) if i in wanted)
    return {i: Image.fromarray(error_maps.gray(c, low, high)) for i, c in itertools.islice(found, len(wanted))}


HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>GSAL audit</title><style>
body{margin:0;background:#f5f7fb;color:#1f2937;font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 64px}
h1{font-size:26px;margin:0 0 8px}h2{font-size:20px;margin:32px 0 6px}h3{font-size:16px;margin:24px 0 6px}
h4{font-size:14px;margin:0}.note{margin:0;color:#6b7280;font-size:12px;overflow-wrap:anywhere}
.good,.bad{border-radius:8px;padding:10px 14px;margin:6px 0}.good{background:#e6f6ec;color:#166534}
.bad{background:#fde8e8;color:#991b1b}.why{font-weight:600}
table{border-collapse:collapse;font-size:12.5px;margin:6px 0}th{text-align:left;font-weight:600;padding:2px 14px 2px 0}
td{padding:2px 14px 2px 0;vertical-align:top;overflow-wrap:anywhere}.terms td:last-child{text-align:right}
.terms tr:last-child{font-weight:600;border-top:1px solid #d1d5db}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(440px,1fr));gap:14px}
article{background:#fff;border:1px solid #e5e9f2;border-radius:12px;padding:14px 16px;break-inside:avoid}
.pictures{display:flex;gap:10px;align-items:flex-start;margin:8px 0}figure{margin:0}
.picture{position:relative;line-height:0}.picture svg{position:absolute;inset:0;width:100%;height:100%}
figcaption{font-size:11px;color:#6b7280}
rect{fill:transparent;vector-effect:non-scaling-stroke;stroke-width:1px;stroke:#38bdf8}
rect.decisive{stroke:#e8912d;stroke-width:2.5px}
@media print{body{background:#fff}}
</style></head><body><main>
"""
