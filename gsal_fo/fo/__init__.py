"""The FiftyOne side: datasets in, fields, tags and run records out. The only package that imports fiftyone."""

from gsal_fo.fo import runs
from gsal_fo.fo.rounds import select
from gsal_fo.fo.scoring import score, score_events
from gsal_fo.fo.training import fit, train

__all__ = ["fit", "runs", "score", "score_events", "select", "train"]
