"""Why an image has its rank: the facts as plain data, and one English sentence made from them (METHOD.md section 6)."""

from collections.abc import Mapping
from typing import Any

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import UNMATCHED
from gsal_fo.config import GsalParams

NOISE = "noise_difficulty"  # the placebo, whose difficulty is none


def concept_facts(
    fine: int, graph: ConceptGraph, coverage: Mapping[str, int], thresholds: Mapping[str, int], params: GsalParams
) -> dict[str, Any]:
    """What the graph says about an assigned concept.

    Args:
        fine: index into ``graph.fine``, -1 background, -2 unmatched.
        graph: the concept graph.
        coverage: labeled instances per node.
        thresholds: tau per level (quantile rule).
        params: ``rarity`` and ``levels`` decide which indicators count.

    Returns:
        JSON-able: ``assigned`` ("concept" | "background" | "unmatched"), ``fine``, ``coarse``, ``abstract``, ``path``,
        and ``indicators``, one per node of the path: node, level, count, threshold (tau, or the level's largest count
        under the graded rule), value (1/0 or graded, in [0, 1]), used (its level is among ``params.levels``), fired
        (used, value > 0).
    """
    if fine < 0:
        kind = "unmatched" if fine == UNMATCHED else "background"
        return {"assigned": kind, "fine": None, "coarse": None, "abstract": [], "path": [], "indicators": []}
    name = graph.fine[fine]
    weight = graph.indicators(coverage, params)
    tops = {
        level: max((coverage[v] for v in nodes), default=0)
        for level, nodes in (("fine", graph.fine), ("coarse", graph.coarse), ("abstract", graph.abstract))
    }
    indicators = []
    for node in graph.path(name):
        level = graph.level(node)
        used = level[0].upper() in params.levels
        indicators.append(
            {
                "node": node,
                "level": level,
                "count": int(coverage[node]),
                "threshold": int(thresholds[level] if params.rarity == "quantile" else tops[level]),
                "value": float(weight[node]),
                "used": used,
                "fired": used and weight[node] > 0,
            }
        )
    return {
        "assigned": "concept",
        "fine": name,
        "coarse": graph.coarse_of(name),
        "abstract": graph.abstract_of(name),
        "path": graph.path(name),
        "indicators": indicators,
    }


def reason(facts: Mapping[str, Any]) -> str:
    """The facts of `facts.gsal_facts` as the end of a sentence, without a period.

    Example: ``proposal 4 looks like "void" (subsurface; dark, round), labeled 2 times (rare at <= 3), and is +2.9 sd
    hard to reconstruct; the image as a whole is +1.1 sd``
    """
    start = f"{_subject(facts)} {_looks(facts)} "
    if facts["strategy"] == NOISE:
        return (
            f"{start}drew {signed(facts['proposal_sd'])} sd of noise in place of its difficulty; "
            f"the image as a whole drew {signed(facts['image_sd'])} sd"
        )
    estimated = "" if facts["screened"] else " (estimated from the image's map)"
    return (
        f"{start}is {signed(facts['proposal_sd'])} sd hard to reconstruct{estimated}; "
        f"the image as a whole is {signed(facts['image_sd'])} sd"
    )


def signed(value: float) -> str:
    """One decimal with its sign; never "-0.0"."""
    text = f"{value:+.1f}"
    return "+0.0" if text == "-0.0" else text


def _subject(facts: Mapping[str, Any]) -> str:
    if facts["source"] == "whole":
        return "the whole image, having no proposals,"
    return f"{'window' if facts['source'] == 'grid' else 'proposal'} {facts['proposal']}"


def _looks(facts: Mapping[str, Any]) -> str:
    if facts["assigned"] == "background":
        return "looks like background and"
    if facts["assigned"] == "unmatched":
        counted = f" ({'counted' if facts['bonus'] else 'not counted'} as rare)" if facts["uses_rarity"] else ""
        return f"looks like no labeled concept{counted} and"
    where = "; ".join(filter(None, [facts["coarse"], ", ".join(facts["abstract"])]))
    return (
        f'looks like "{facts["fine"]}" ({where}), labeled {_times(facts["indicators"][0]["count"])}{_rare(facts)}, and'
    )


def _times(count: int) -> str:
    return f"{count} time" if count == 1 else f"{count} times"


def _rare(facts: Mapping[str, Any]) -> str:
    """What makes it rare: the fine node itself, else what fired above it, else that nothing did."""
    fine, *above = facts["indicators"]
    if not facts["uses_rarity"]:
        return ""
    if facts["rarity_rule"] == "graded":
        return f" (rarity {fine['value']:.2f})" if fine["used"] else f" (rarity {_graded(above)})"
    if fine["fired"]:
        return f" (rare at <= {fine['threshold']})"
    fired = [f'"{i["node"]}" is rare, {i["count"]} <= {i["threshold"]}' for i in above if i["fired"]]
    if fired:
        return f" ({'; '.join(fired)})"
    return f" (not rare, above {fine['threshold']})" if fine["used"] else " (not rare)"


def _graded(above: list[dict[str, Any]]) -> str:
    return ", ".join(f"{i['value']:.2f} of {i['node']}" for i in above if i["used"]) or "0.00"
