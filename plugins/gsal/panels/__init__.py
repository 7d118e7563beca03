"""The panels: each reads its state, makes one call into gsal_fo, and lays out what comes back."""

from .coverage import ConceptCoverage
from .preview import BatchPreview
from .why import WhyThisImage

PANELS = (ConceptCoverage, BatchPreview, WhyThisImage)
