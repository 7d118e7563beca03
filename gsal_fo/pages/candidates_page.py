"""Candidate concepts to look at: a page with their example crops, and the same as one contact sheet."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw

from gsal_fo.concepts.build.candidates import Candidate, Crop, Found
from gsal_fo.images import ImageError, open_upright
from gsal_fo.pages import files
from gsal_fo.pages.pictures import CROP, cut, inline

LABEL_PX = 18  # height of a candidate's line on the sheet


def write(found: Found, page: Path, sheet: Path, *, graph: str, run: str, force: bool = False) -> None:
    """Write the page (one HTML file that needs no network) and the sheet (PNG); raises ValueError as
    ``files.write_new``."""
    files.check_new(page, sheet, force=force)
    rows = [[_crop(c) for c in candidate.examples] for candidate in found.candidates]
    cards = [_card(c, crops) for c, crops in zip(found.candidates, rows, strict=True)]
    said = (
        f"{found.unmatched} crops of the pool match no concept of {escape(graph)}; {found.sampled} of them were "
        f"clustered. Clusters are proposals by looks: one kind may be split, and one cluster may hold several kinds "
        f"or plain background. A candidate enters the graph only with --add."
    )
    notes = "".join(f'<p class="note">{escape(n)}</p>' for n in found.notes)
    nothing = "" if cards else "<p>No cluster was large enough to be a candidate.</p>"
    head = f'<h1>Candidate concepts</h1><p>{said}</p><p class="note">{escape(run)}</p>{notes}{nothing}'
    files.write_new(page, f"{HEAD}{head}{''.join(cards)}</main></body></html>\n", force=force)
    files.save_new(_sheet(found.candidates, rows), sheet, force=force)


def _crop(crop: Crop) -> Image.Image | None:
    try:
        return cut(open_upright(crop.path), crop.box)
    except ImageError:
        return None


def facts(candidate: Candidate) -> str:
    """One line about a candidate."""
    nearest = ""
    if candidate.nearest:
        nearest = f"; least unlike {candidate.nearest[0]} (cosine distance {candidate.nearest[1]:.2f})"
    return f"{candidate.crops} crops in {candidate.images} images{nearest}; {candidate.why}"


def _card(candidate: Candidate, crops: Sequence[Image.Image | None]) -> str:
    figures = []
    for crop, picture in zip(candidate.examples, crops, strict=True):
        text = escape(f"{Path(crop.path).name}, proposal {crop.number + 1}", quote=True)
        if picture is None:
            figures.append(f'<figure title="{text}">cannot be read</figure>')
        else:
            figures.append(f'<figure title="{text}"><img alt="{text}" src="{inline(picture, CROP)}"></figure>')
    title = f"<h2>{escape(candidate.name)}</h2><p>{escape(facts(candidate))}</p>"
    return f'<article>{title}<div class="crops">{"".join(figures)}</div></article>'


def _sheet(candidates: Sequence[Candidate], rows: Sequence[Sequence[Image.Image | None]]) -> Image.Image:
    """One row of crops per candidate, its name above."""
    wide = max([len(r) for r in rows], default=1)
    height = CROP + LABEL_PX
    sheet = Image.new("RGB", (max(wide * CROP, 4 * CROP), max(len(rows), 1) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (candidate, crops) in enumerate(zip(candidates, rows, strict=True)):
        draw.text((3, y * height + 3), f"{candidate.name}: {candidate.crops} crops", fill="black")
        for x, crop in enumerate(crops):
            if crop is not None:
                crop.thumbnail((CROP - 2, CROP - 2))
                sheet.paste(crop, (x * CROP, y * height + LABEL_PX))
    if not candidates:
        draw.text((3, 3), "no candidate", fill="black")
    return sheet


HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>GSAL candidate concepts</title><style>
body{margin:0;background:#f5f7fb;color:#1f2937;font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 64px}
h1{font-size:26px;margin:0 0 8px}h2{font-size:17px;margin:0}p{margin:4px 0 10px}
.note{color:#6b7280;font-size:12px;overflow-wrap:anywhere}
article{background:#fff;border:1px solid #e5e9f2;border-radius:12px;padding:14px 16px;margin:12px 0;break-inside:avoid}
.crops{display:flex;flex-wrap:wrap;gap:8px;align-items:flex-end}figure{margin:0;line-height:0}
@media print{body{background:#fff}}
</style></head><body><main>
"""
