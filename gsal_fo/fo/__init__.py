"""The FiftyOne side: datasets in, fields, tags and run records out. The only package that imports fiftyone."""

from gsal_fo.fo import runs
from gsal_fo.fo.app import plugin_folder as plugin
from gsal_fo.fo.app.coverage import coverage, node_view
from gsal_fo.fo.app.views import scoring_line, setup_views
from gsal_fo.fo.cancelling import cancel
from gsal_fo.fo.concepts import build_concepts, propose_concepts
from gsal_fo.fo.exchange.annotating import annotate
from gsal_fo.fo.exchange.exporting import export
from gsal_fo.fo.exchange.ingesting import IngestReport, ingest
from gsal_fo.fo.reporting import status
from gsal_fo.fo.rounds import select
from gsal_fo.fo.scoring import score, score_events
from gsal_fo.fo.training import fit, train
from gsal_fo.fo.visualizing import visualize

__all__ = [
    "IngestReport",
    "annotate",
    "build_concepts",
    "cancel",
    "coverage",
    "export",
    "fit",
    "ingest",
    "node_view",
    "plugin",
    "propose_concepts",
    "runs",
    "score",
    "score_events",
    "scoring_line",
    "select",
    "setup_views",
    "status",
    "train",
    "visualize",
]
