"""The fixtures of tests/fo_pool.py."""

from tests.fo_pool import dataset, graph, home, scored, template, tiny, tiny_looks

__all__ = ["dataset", "graph", "home", "scored", "template", "tiny", "tiny_looks"]
