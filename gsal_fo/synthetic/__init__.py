"""Synthetic pools with ground truth."""

from gsal_fo.synthetic.thin_film import make_pool

__all__ = ["make_pool"]
