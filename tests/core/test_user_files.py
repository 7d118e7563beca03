"""Files that people write: what is valid is read, anything else is one short sentence that names the file."""

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gsal_fo.concepts.graph import ConceptGraph, GraphError
from gsal_fo.user_files import MOST_VALUES, FileError, parse_yaml, read_json, read_text, read_yaml, shown

TEXT = st.text(st.characters(exclude_categories=["Nd", "Cs"]), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def bomb(levels: int) -> str:
    lines = ["- &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    return "\n".join(lines + [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)])


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    return "\n".join(lines + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, levels)])


@given(PLAIN)
@settings(max_examples=60)
def test_plain_values_are_read_as_safe_yaml_reads_them(value):
    text = yaml.safe_dump(value)
    assert parse_yaml(text, "x") == yaml.safe_load(text)


def test_anchors_and_merges_are_yaml():
    text = "base: &b {coarse: s, abstract: &d [dark]}\nmore: {<<: *b, abstract: [thin]}\nlast: [*d, *d]\n"
    assert parse_yaml(text, "x")["more"] == {"coarse": "s", "abstract": ["thin"]}
    assert parse_yaml(text, "x")["last"] == [["dark"], ["dark"]]
    nested = "one: {in: &i {<<: {x: 1}, x: 2}}\ntwo: {<<: *i, y: 3}\n"
    assert parse_yaml(nested, "x") == yaml.safe_load(nested)  # a key of its own beside a merged one is no double


def test_the_two_halves_of_a_character_as_json_writes_them_are_one():
    assert parse_yaml('{"a": "\\ud83d\\udc1b"}', "x") == {"a": "🐛"}


def test_numbers_and_dates_can_stay_as_they_are_written():
    text = "[010, 1_000, 1.50, 12:30, 0x1f, 2024-13-45, 2024-01-02, yes, ~, .inf, 1e3]"
    written = ["010", "1_000", "1.50", "12:30", "0x1f", "2024-13-45", "2024-01-02", True, None, ".inf", "1e3"]
    assert parse_yaml(text, "x", numbers=False) == written
    assert parse_yaml("[7, 1.5, 1e-3, -2E4]", "x") == [7, 1.5, 0.001, -20000.0]


REFUSED = {
    "deep brackets": ("[" * 100_000, "nest"),
    "deep braces": ("{a: " * 100_000, "nest"),
    "deep dashes": ("- " * 100_000, "nest"),
    "65 levels": ("[" * 65 + "]" * 65, "more than 64 deep"),
    "alias bomb": (bomb(9), f"more than {MOST_VALUES:,} values"),
    "merge bomb": (merge_bomb(9), f"more than {MOST_VALUES:,} values"),
    "deep by aliases": ("\n".join(["- &a0 [x]"] + [f"- &a{i} [*a{i - 1}]" for i in range(1, 99)]), "64 deep"),
    "holds itself": ("a: &a [*a]", "holds itself"),
    "a mapping that holds itself": ("&a {b: *a}", "holds itself"),
    "unknown alias": ("[*nobody]", "not valid YAML"),
    "twice": ("a: 1\nb: 2\na: 3", 'line 3: "a" is given twice'),
    "twice below": ("a: {b: [{c: 1, c: 2}]}", '"c" is given twice'),
    "a list as key": ("? [a]\n: 1", "a key must be plain text"),
    "a mapping as key": ("{{a: 1}: 2}", "a key must be plain text"),
    "an integer that is none": ("a: !!int x", '"x" is no valid int'),
    "an integer of underscores": ("a: 0x_", "is no valid"),
    "a timestamp that is none": ("a: !!timestamp x", "is no valid"),
    "a day that is none": ("a: 2024-13-45", "is no valid"),
    "a number of digits without end": (f"a: {'9' * 5000}", "is no valid"),
    "bytes that are none": ("a: !!binary é", "not valid YAML"),
    "an object": ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    "an unknown tag": (f"a: !{'x' * 5000} 1", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2", "not valid YAML"),
    "half a character": ('a: "\\ud800"', "not valid YAML|half of a character"),
    "a control character": ("a: \x07", "not valid YAML"),
    "unfinished": ("a: [", "not valid YAML"),
    "tabs": ("a:\n\t- b", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_plain_yaml_is_one_short_sentence_that_names_the_file(tmp_path, text, expected):
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=expected) as caught:
        read_yaml(path, "the settings")
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message) - len(str(path)) < 300 and message.isprintable()


def test_values_within_the_bound_may_be_shared_by_aliases():
    assert len(parse_yaml(bomb(5), "x")) == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[" * 100_000, "nested too deep"), ("{", "not valid JSON"), (f"[{'9' * 5000}]", "not valid JSON"), ("", "not")],
)
def test_what_is_no_json_is_one_short_sentence(tmp_path, text, expected):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(FileError, match=expected) as caught:
        read_json(path, "the labels")
    assert str(path) in str(caught.value) and len(str(caught.value)) - len(str(path)) < 300


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes("größe".encode("latin-1"))
    with (tmp_path / "long").open("wb") as file:
        file.truncate(2**40)  # sparse
    for path, reason in [
        (tmp_path / "gone", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "no ordinary file"),
        (tmp_path / "latin", "UTF-8"),
        (tmp_path / "long", "1,099,511,627,776 bytes are too long for the settings; expected at most 99"),
        (tmp_path / "a\0b", "null byte"),
    ]:
        with pytest.raises(FileError, match=reason) as caught:
            read_text(path, "the settings", most=99)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(tmp_path / "a", "the settings") == {"a": 1}


SHOWN = [
    ("void", '"void"'),
    ("x" * 60, '"' + "x" * 60 + '"'),
    ("x" * 500, '"' + "x" * 57 + '..."'),
    ("\u2028" * 500, "'" + "\\u2028" * 9 + "\\u2...'"),
    ("a\nb", r"'a\nb'"),
    ("\ud800", r"'\ud800'"),
    (7, "7"),
    (10**5000, "a number of many digits"),
    (None, "None"),
    (float("nan"), "nan"),
    ([0] * 10**6, "a list"),
    ({"a": 1}, "a mapping"),
]


@pytest.mark.parametrize(("value", "said"), SHOWN, ids=range(len(SHOWN)))
def test_a_message_repeats_a_value_shortly(value, said):
    assert shown(value) == said


FUZZED = sorted((Path(__file__).parents[3] / "shared" / "cases" / "fuzzed").glob("graph-*.yaml"))


@pytest.mark.skipif(not FUZZED, reason="the folder of found cases is not beside the checkout")
@pytest.mark.parametrize("path", FUZZED, ids=lambda p: p.stem)
def test_graph_files_that_mutation_found_are_taken_or_refused_in_one_short_sentence(path):
    try:
        graph = ConceptGraph.load(path)
    except GraphError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and len(message) - len(str(path)) < 300 and message.isprintable()
    else:
        json.dumps(graph.to_dict()).encode()


ODD_GRAPHS = {
    "half a character": {"concepts": {"\ud800": {"coarse": "b"}}},
    "half a character in a family": {"concepts": {"a": {"coarse": "\udfff"}}},
    "a line break": {"concepts": {"a\nb": {"coarse": "b"}}},
    "a control character": {"concepts": {"a\x00b": {"coarse": "b"}}},
    "a line separator": {"concepts": {"a\u2028b": {"coarse": "b"}}},
    "half a character in a prompt": {"concepts": {"a": {"coarse": "b", "prompts": ["\ud83d"]}}},
    "a control character in a template": {"templates": ["a\x1b {}"], "concepts": {"a": {"coarse": "b"}}},
    "a list as an attribute": {"concepts": {"a": {"coarse": "b", "abstract": [list(range(10**5))]}}},
    "a mapping as a name": {"name": {"a": 1}, "concepts": {"a": {"coarse": "b"}}},
    "a name of two lines": {"name": "a\nb", "concepts": {"a": {"coarse": "b"}}},
    "infinity": {"concepts": {float("inf"): {"coarse": "b"}}},
    "no number": {"concepts": {float("nan"): {"coarse": "b"}}},
    "a huge number": {"concepts": {10**5000: {"coarse": "b"}}},
    "bytes": {"concepts": {b"a": {"coarse": "b"}}},
    "a tuple": {"concepts": {("a", "b"): {"coarse": "b"}}},
    "a set as a parent": {"concepts": {"a": {"coarse": {"b"}}}},
    "an endless unknown key": {"concepts": {"a": {"coarse": "b", "x" * 10**6: 1}}},
    "many unknown keys": {f"k{i}": 1 for i in range(10**4)},
    "a huge key": {10**5000: 1},
    "an endless name of no parent": {"concepts": {"x" * 10**6: {}}},
    "an endless template": {"templates": ["x" * 10**6], "concepts": {"a": {"coarse": "b"}}},
    "a mapping of itself": {},
}
ODD_GRAPHS["a mapping of itself"]["concepts"] = ODD_GRAPHS["a mapping of itself"]


@pytest.mark.parametrize("values", ODD_GRAPHS.values(), ids=ODD_GRAPHS.keys())
def test_odd_values_of_a_graph_are_one_short_sentence(values):
    with pytest.raises(GraphError) as caught:
        ConceptGraph.from_dict(values, source="graph.yaml")
    message = str(caught.value)
    assert message.startswith("graph.yaml: ") and len(message) < 300 and message.isprintable()


def test_names_stay_as_written_and_come_back(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        "name: 007\nconcepts: {010: {coarse: 2024-01-02, abstract: [1_0, 3.10]}, ½ é 缺陷 👍🏽: {coarse: x}}"
    )
    graph = ConceptGraph.load(path)
    assert graph.name == "007" and graph.path("010") == ["010", "2024-01-02", "1_0", "3.10"]
    assert "½ é 缺陷 👍🏽" in graph.fine
    path.write_text(yaml.safe_dump(graph.to_dict(), allow_unicode=True))
    assert ConceptGraph.load(path).to_dict() == graph.to_dict()


def test_concepts_may_share_and_merge_what_they_have_in_common(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        "concepts:\n  void: &void {coarse: sub, abstract: &dark [dark]}\n  pore: {<<: *void, prompts: [a pore]}\n"
        "  hole: {coarse: surf, abstract: *dark}\n"
    )
    graph = ConceptGraph.load(path)
    assert graph.path("pore") == ["pore", "sub", "dark"] and graph.path("hole") == ["hole", "surf", "dark"]


def test_a_graph_of_ten_thousand_labels_is_read(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text("concepts:\n" + "".join(f"  l{i}: {{coarse: f{i % 9}, abstract: [dark]}}\n" for i in range(10_000)))
    assert len(ConceptGraph.load(path).fine) == 10_000
