"""Concept graph and Eq. 4: by hand over three rounds, against loops, and what is refused."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gsal_fo.concepts.graph import ConceptGraph, GraphError
from gsal_fo.config import GsalParams

SIX = {
    "concepts": {
        "crack": {"coarse": "surface", "abstract": ["dark"]},
        "dent": {"coarse": "surface"},
        "void": {"coarse": "subsurface", "abstract": ["dark"]},
    }
}
# Labels after each round, and by hand: coverage, tau per level, rare nodes, bonus with delta = 0.5.
# Quantile 0.2, method "lower", of n sorted counts is the one at floor(0.2 (n - 1)): of one to three, the smallest.
ROUNDS = [
    (
        {},
        {"crack": 0, "dent": 0, "void": 0, "surface": 0, "subsurface": 0, "dark": 0},
        {"fine": 0, "coarse": 0, "abstract": 0},
        {"crack", "dent", "void", "surface", "subsurface", "dark"},
        {"crack": 1 + 1 + 0.5, "dent": 1 + 1, "void": 1 + 1 + 0.5},
    ),
    (
        {"crack": 4, "dent": 2},
        {"crack": 4, "dent": 2, "void": 0, "surface": 6, "subsurface": 0, "dark": 4},
        {"fine": 0, "coarse": 0, "abstract": 4},
        {"void", "subsurface", "dark"},
        {"crack": 0.5, "dent": 0, "void": 1 + 1 + 0.5},
    ),
    (
        {"crack": 4, "dent": 2, "void": 3},
        {"crack": 4, "dent": 2, "void": 3, "surface": 6, "subsurface": 3, "dark": 7},
        {"fine": 2, "coarse": 3, "abstract": 7},
        {"dent", "subsurface", "dark"},
        {"crack": 0.5, "dent": 1, "void": 1 + 0.5},
    ),
]
LAST = ROUNDS[-1][0]


def six() -> ConceptGraph:
    return ConceptGraph.from_dict(SIX, source="six.yaml")


@pytest.mark.parametrize(("labels", "coverage", "tau", "rare", "bonus"), ROUNDS)
def test_rounds_worked_by_hand(labels, coverage, tau, rare, bonus):
    graph, params = six(), GsalParams()
    assert graph.coverage(labels) == coverage
    assert graph.thresholds(coverage, params) == tau
    assert {v for v, is_rare in graph.rare(coverage, params).items() if is_rare} == rare
    assert graph.bonus(coverage, params) == bonus


@pytest.mark.parametrize(
    ("params", "bonus"),
    [  # by hand from the last round: counts 4, 2, 3; 6, 3; 7
        (GsalParams(levels="F"), {"crack": 0, "dent": 1, "void": 0}),
        (GsalParams(levels="C"), {"crack": 0, "dent": 0, "void": 1}),
        (GsalParams(levels="A"), {"crack": 0.5, "dent": 0, "void": 0.5}),
        (GsalParams(levels="FA", delta=2), {"crack": 2, "dent": 1, "void": 2}),
        (GsalParams(quantile=0.5), {"crack": 0.5, "dent": 1, "void": 2.5}),
        (GsalParams(quantile=1), {"crack": 2.5, "dent": 2, "void": 2.5}),
        (GsalParams(rarity="graded"), {"crack": 0, "dent": 0.5, "void": 0.25 + 0.5}),
    ],
)
def test_options_worked_by_hand(params, bonus):
    graph = six()
    assert graph.bonus(graph.coverage(LAST), params) == pytest.approx(bonus)


def test_graded_counts_a_level_without_labels_as_fully_rare():
    graph = six()
    assert set(graph.indicators(graph.coverage({}), GsalParams(rarity="graded")).values()) == {1.0}


def test_the_mean_over_attributes_does_not_grow_with_their_number():
    graph = ConceptGraph.from_dict(
        {"concepts": {"a": {"coarse": "f", "abstract": ["x", "y", "z"]}, "b": {"coarse": "f", "abstract": ["x"]}}}
    )
    empty = graph.coverage({})
    assert graph.bonus(empty, GsalParams()) == {"a": 2 + 1.5, "b": 2 + 0.5}
    assert graph.bonus(empty, GsalParams(abstract="mean")) == {"a": 2.5, "b": 2.5}


NAMES = [f"n{i}" for i in range(6)]
GRAPHS = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(["f0", "f1", "f2"]), st.lists(st.sampled_from(["a0", "a1", "a2"]), unique=True)),
    min_size=1,
)
PARAMS = st.builds(
    GsalParams,
    quantile=st.sampled_from([0.0, 0.2, 0.37, 0.5, 0.99, 1.0]),
    delta=st.sampled_from([0.0, 0.5, 2.0]),
    rarity=st.sampled_from(["quantile", "graded"]),
    levels=st.sampled_from(["F", "C", "A", "FC", "CA", "FA", "FCA"]),
    abstract=st.sampled_from(["sum", "mean"]),
)


def slow_bonus(nodes, labels, params):
    """METHOD.md sections 1 and 3 in loops over the plain mapping fine -> (family, attributes)."""
    counts = [{}, {}, {}]
    for fine, (family, attributes) in nodes.items():
        counts[0][fine] = labels.get(fine, 0)
        counts[1][family] = counts[1].get(family, 0) + labels.get(fine, 0)
        for a in attributes:
            counts[2][a] = counts[2].get(a, 0) + labels.get(fine, 0)

    def weight(level, node):
        values = sorted(counts[level].values())
        if params.rarity == "graded":
            return 1.0 if values[-1] == 0 else 1 - counts[level][node] / values[-1]
        return 1.0 if counts[level][node] <= values[math.floor(params.quantile * (len(values) - 1))] else 0.0

    out = {}
    for fine, (family, attributes) in nodes.items():
        b = 0.0
        if "F" in params.levels:
            b += weight(0, fine)
        if "C" in params.levels:
            b += weight(1, family)
        if "A" in params.levels:
            for a in attributes:
                b += params.delta * weight(2, a) / (len(attributes) if params.abstract == "mean" else 1)
        out[fine] = b
    return out


@given(GRAPHS, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 30)), PARAMS)
def test_bonus_is_the_formula_in_loops(nodes, labels, params):
    graph = ConceptGraph.from_dict({"concepts": {f: {"coarse": c, "abstract": a} for f, (c, a) in nodes.items()}})
    assert graph.bonus(graph.coverage(labels), params) == pytest.approx(slow_bonus(nodes, labels, params))


@given(GRAPHS, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 30)))
def test_the_order_of_the_file_changes_nothing(nodes, labels):
    def build(items):
        return ConceptGraph.from_dict({"concepts": {f: {"coarse": c, "abstract": a} for f, (c, a) in items}})

    one, other = build(list(nodes.items())), build(list(nodes.items())[::-1])
    assert one.fine == other.fine == sorted(nodes)
    assert one.coverage(labels) == other.coverage(labels)
    assert all(one.path(f) == other.path(f) for f in nodes)


def test_path_levels_edges_and_prompts():
    graph = ConceptGraph.from_dict(
        {"concepts": {"drill_hole": {"coarse": "surface", "abstract": ["round", "dark"]}, "b": {"coarse": "surface"}}}
    )
    assert graph.path("drill_hole") == ["drill_hole", "surface", "dark", "round"]
    assert graph.graph.nodes["surface"]["level"] == "coarse"
    assert set(graph.graph.edges("drill_hole")) == {("drill_hole", v) for v in ("surface", "dark", "round")}
    assert graph.prompts("drill_hole") == ["drill hole"]


def test_labels_outside_the_graph_add_nothing_and_negative_counts_are_refused():
    graph = six()
    assert graph.coverage({"defect": 7}) == graph.coverage({})
    with pytest.raises(ValueError, match=r"at least 0.*crack"):
        graph.coverage({"crack": -1})


@given(GRAPHS)
@settings(max_examples=25)
def test_a_graph_comes_back_from_its_own_values(nodes):
    graph = ConceptGraph.from_dict({"concepts": {f: {"coarse": c, "abstract": a} for f, (c, a) in nodes.items()}})
    again = ConceptGraph.from_dict(yaml.safe_load(yaml.safe_dump(graph.to_dict())))
    assert again.to_dict() == graph.to_dict()


REFUSED = {
    "not a mapping": ("- void", "expected a mapping, got list"),
    "empty file": ("", "expected a mapping, got NoneType"),
    "no concepts": ("name: x", "the graph is empty"),
    "empty concepts": ("concepts: {}", "the graph is empty"),
    "unknown key": ("concept: {}", "unknown key concept"),
    "unknown node key": ("concepts: {void: {coarse: s, colour: [dark]}}", '"void" has the unknown key colour'),
    "node no mapping": ("concepts: {void: subsurface}", '"void" is not a mapping'),
    "no parent": ("concepts: {void: {abstract: [dark]}}", '"void" has no coarse parent'),
    "two parents": ("concepts: {void: {coarse: [s, t]}}", '"void" has several coarse parents'),
    "fine is coarse": ("concepts: {void: {coarse: pit}, pit: {coarse: s}}", '"pit" is used on two levels'),
    "own parent": ("concepts: {void: {coarse: void}}", '"void" is used on two levels'),
    "abstract is coarse": ("concepts: {void: {coarse: s, abstract: [s]}}", '"s" is used on two levels'),
    "duplicate label": ("concepts: {void: {coarse: s}, void: {coarse: t}}", '"void" is given twice'),
    "duplicate after quoting": ('concepts: {1: {coarse: s}, "1": {coarse: s}}', 'line 1: "1" is given twice'),
    "duplicate attribute": ("concepts: {void: {coarse: s, abstract: [a, a]}}", '"void" names an attribute twice'),
    "empty label": ('concepts: {"": {coarse: s}}', "empty or unusable name"),
    "empty parent": ('concepts: {void: {coarse: " "}}', "empty or unusable name"),
    "null attribute": ("concepts: {void: {coarse: s, abstract: [null]}}", "empty or unusable name"),
    "bare no": ("concepts: {no: {coarse: s}}", "quote words like yes, no, null"),
    "attributes no list": ("concepts: {void: {coarse: s, abstract: dark}}", '`abstract` of "void" is not a list'),
    "prompts no list": ("concepts: {void: {coarse: s, prompts: hole}}", 'prompts of "void" is not a list'),
    "template without {}": (
        'templates: ["a photo"]\nconcepts: {void: {coarse: s}}',
        'template "a photo" has no single {}',
    ),
    "template with a field": ('templates: ["{} {x}"]\nconcepts: {void: {coarse: s}}', "has no single {}"),
    "no templates": ("templates: []\nconcepts: {void: {coarse: s}}", "`templates` is empty"),
    "broken YAML": ("concepts: [", "not valid YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_graph_file_is_refused_in_one_sentence_with_its_name_and_a_cure(tmp_path: Path, case):
    text, expected = REFUSED[case]
    path = tmp_path / "graph.yaml"
    path.write_text(text)
    with pytest.raises(GraphError) as caught:
        ConceptGraph.load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and expected in message
    assert ";" in message and "\n" not in message


def test_a_missing_or_binary_file_is_refused(tmp_path: Path):
    with pytest.raises(GraphError, match="cannot read the concept graph"):
        ConceptGraph.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(GraphError, match="cannot read the concept graph"):
        ConceptGraph.load(tmp_path / "binary.yaml")


def test_yaml_that_builds_objects_is_not_obeyed(tmp_path: Path):
    path = tmp_path / "graph.yaml"
    path.write_text(f"concepts: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'made'}]")
    with pytest.raises(GraphError, match="not valid YAML"):
        ConceptGraph.load(path)
    assert not (tmp_path / "made").exists()
