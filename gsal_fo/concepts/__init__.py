"""The concept graph, and which concept a crop shows."""

from gsal_fo.concepts.graph import ConceptGraph, GraphError

__all__ = ["ConceptGraph", "GraphError"]
