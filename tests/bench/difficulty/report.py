"""The tables of docs/difficulty.md from the rows of ``results.jsonl``."""

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
QUESTIONS = ("box", "rare box", "rare", "clean", "control", "rare/clean")


def tables(rows: Iterable[Row]) -> str:
    """Markdown: one section per set and model."""
    groups: dict[tuple[str, str, int, int], list[Row]] = {}
    for row in {str(row): row for row in rows}.values():  # a run that was cut off left some rows twice
        groups.setdefault((row["set"], row["model"], row["limit"], row["seed"]), []).append(row)
    return "\n\n".join(section(*key, found) for key, found in groups.items())


def section(name: str, model: str, limit: int, seed: int, rows: list[Row]) -> str:
    about = next((r for r in rows if r["kind"] == "about"), None)
    out = [f"### {name}, {model} (limit {limit}, seed {seed})"]
    if about:
        out.append(
            f"{about['images']} images ({about['rare']} with a rare class, {about['clean']} clean), {about['boxes']} "
            f"boxes; fit {about['fit seconds']:g} s, all {about['cpu seconds']:g} s of CPU."
        )
    else:
        out.append("Cut off: what was measured so far.")
    asked = [q for q in QUESTIONS if any(q in r for r in rows)]
    levels = [
        [r["score"], f"{r['t']:g}", r["reduce"], *(cell(r.get(q)) for q in asked)] for r in rows if r["kind"] == "level"
    ]
    rivals = [[r["of"], "", r["reduce"], *(cell(r.get(q)) for q in asked)] for r in rows if r["kind"] == "rival"]
    out.append(table(["score", "t", "reduce", *asked], levels + rivals))
    corrected = [r for r in rows if r["kind"] == "correction"]
    for r in corrected:
        if r["how"] == "follows":
            followed = ", ".join(f"{k} {r[k]:g}" for k in ("image contrast", "box area", "box contrast"))
            out.append(f"Spearman of E (t {r['t']:g}, {r['reduce']}) with {followed}.")
    body = [[r["how"], *(cell(r.get(q)) for q in asked)] for r in corrected if r["how"] != "follows"]
    if body:
        out.append(table(["normalized or corrected by", *asked], body))
    body = [[r["of"], *(cell(r.get(q)) for q in asked)] for r in rows if r["kind"] == "variant"]
    if body:
        out.append(table(["map, as the model reduces it", *asked], body))
    drawn = [r for r in rows if r["kind"] == "draws"]
    body = [
        [r["noise"], r["K"], *(f"{r[s]['repeats']:.2f}" for s in "EV"), *(cell(r[s]["box"]) for s in "EV")]
        for r in drawn
    ]
    if body:
        out.append(table(["noise", "K", "E repeats", "V repeats", "E box", "V box"], body))
    body = [[r["regions"], f"{r['t']:g}", r["reduce"], cell(r["box"])] for r in rows if r["kind"] == "regions"]
    if body:
        out.append(table(["regions", "t", "reduce", "box"], body))
    return "\n\n".join(out)


def cell(value: list[float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)
