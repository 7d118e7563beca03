"""Formats of labeling tools: one file each, with a writer and a reader; which one a file is shows in its content."""

from gsal_fo.fo.exchange.formats.archive import opened
from gsal_fo.fo.exchange.formats.finding import read
from gsal_fo.fo.exchange.formats.model import Batch, Box, Contents, Format, Item, Labeled, Shape
from gsal_fo.fo.exchange.formats.registry import FORMATS
from gsal_fo.fo.exchange.formats.target import MEDIA, Target, file_digest

__all__ = [
    "FORMATS",
    "MEDIA",
    "Batch",
    "Box",
    "Contents",
    "Format",
    "Item",
    "Labeled",
    "Shape",
    "Target",
    "file_digest",
    "opened",
    "read",
]
