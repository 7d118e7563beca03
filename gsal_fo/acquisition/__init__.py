"""Ranking a pool: from the columns that the stages left, with the labels of now, to an order and a batch."""

from gsal_fo.acquisition.strategies.gsal.scores import Scores, gsal_scores

__all__ = ["Scores", "gsal_scores"]
