"""Pictures inside HTML pages: an image as a data URL, a box over it, a crop of it."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from gsal_fo.boxes import crop_windows

SIDE, CROP = 256, 96  # pixels of a picture and of a crop on a page
PAD = 0.2  # of a box's size, as the crops that the models see


def inline(image: Image.Image, side: int) -> str:
    """The image as a data URL, its longer side ``side`` pixels."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def rect(box: Sequence[float], kind: str, text: str) -> str:
    """An SVG rectangle of class ``kind`` over a picture of size 1 x 1, ``xywh_rel``; ``text`` shows on hover."""
    x, y, w, h = (f"{float(v):.4f}" for v in box)
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}"><title>{escape(text)}</title></rect>'


def cut(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """The crop of a box ``xywh_rel``, padded as the models see it, at least one pixel."""
    left, top, right, bottom = crop_windows(np.array(box), *image.size, pad=PAD)[0].tolist()
    return image.crop((left, top, right, bottom))
