"""The fixtures of tests/fo_pool.py."""

from fo_pool import dataset, graph, home, tiny

__all__ = ["dataset", "graph", "home", "tiny"]
