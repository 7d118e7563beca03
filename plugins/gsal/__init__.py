"""GSAL in the App. FiftyOne runs this file again on every call, so it only registers; the work is in gsal_fo."""

from . import handoff
from .operators import OPERATORS
from .panels import PANELS


def register(plugin):
    """Hand operators and panels to FiftyOne; each is listed in fiftyone.yml, too."""
    for cls in (*OPERATORS, *handoff.OPERATORS, *PANELS):
        plugin.register(cls)
