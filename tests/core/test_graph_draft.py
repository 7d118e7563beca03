"""Drafting a graph from labels: families and attributes out of texts whose meaning is planted, files nobody loses."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gsal_fo.cli import main
from gsal_fo.concepts.build import building
from gsal_fo.concepts.build import draft as graph_draft
from gsal_fo.concepts.build import file as graph_file
from gsal_fo.concepts.build import vocabulary as graph_words
from gsal_fo.concepts.build.vocabulary import Vocabulary
from gsal_fo.concepts.graph import ConceptGraph

# What each word means, on four axes: animal, vehicle, furry, metallic.
MEANING = {
    "dog": [1, 0, 0.3, 0],
    "cat": [1, 0, 0.3, 0],
    "snake": [1, 0, -0.3, 0],
    "car": [0, 1, 0, 0.3],
    "tram": [0, 1, 0, 0.3],
    "raft": [0, 1, 0, -0.3],
    "animal": [1, 0, 0, 0],
    "vehicle": [0, 1, 0, 0],
    "furry": [0, 0, 1, 0],
    "metallic": [0, 0, 0, 1],
}
LABELS = ["dog", "cat", "snake", "car", "tram", "raft"]
WORDS = Vocabulary(attributes=("furry", "metallic"), families=("animal", "vehicle"))


def planted(texts: list[str]) -> np.ndarray:
    """Each text means the sum of its words; a word without meaning is a direction of its own."""
    out = np.zeros((len(texts), 4 + len(graph_words.everyday_phrases())))
    others = {w: 4 + i for i, w in enumerate(w for g in graph_words.EVERYDAY for w in g)}
    for row, text in zip(out, texts, strict=True):
        for word in text.split():
            if word in MEANING:
                row[:4] += MEANING[word]
            elif word in others:
                row[others[word]] += 1
    return out


def made(labels: list[str] = LABELS, **more) -> graph_draft.Draft:
    settings = {"vocabulary": WORDS, "families": 2, "attributes": 1} | more
    return graph_draft.draft(labels, planted, name="zoo", **settings)


def test_families_are_the_planted_clusters_named_by_the_vocabulary():
    graph = ConceptGraph.from_dict(made().values)
    assert {f: graph.coarse_of(f) for f in graph.fine} == {
        **dict.fromkeys(["dog", "cat", "snake"], "animal"),
        **dict.fromkeys(["car", "tram", "raft"], "vehicle"),
    }


def test_attributes_are_those_that_fit_a_label_better_than_the_others():
    graph = ConceptGraph.from_dict(made().values)
    assert graph.abstract_of("dog") == graph.abstract_of("cat") == ["furry"]
    assert graph.abstract_of("car") == graph.abstract_of("tram") == ["metallic"]


def test_without_family_words_a_family_is_named_after_its_most_central_label():
    words = Vocabulary(attributes=WORDS.attributes, families=())
    graph = ConceptGraph.from_dict(made(vocabulary=words).values)
    # dog and cat point the same way and outweigh snake; of equals the first by name is taken, as of car and tram.
    assert graph.coarse == ["car_and_similar", "cat_and_similar"]


def test_a_label_that_is_a_vocabulary_word_stands_on_one_level_only():
    graph = ConceptGraph.from_dict(made([*LABELS, "animal", "furry"]).values)
    assert graph.level("animal") == graph.level("furry") == "fine"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_texts_give_a_graph_that_passes_and_that_label_order_cannot_change(data):
    names = data.draw(st.lists(st.text("abcd_ #:'-", min_size=1).filter(str.strip), min_size=1, max_size=9))
    names = graph_file.checked_labels(names, "labels")
    seed = data.draw(st.integers(0, 99))
    dim = data.draw(st.integers(1, 6))

    def encode(texts: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng([seed, *t.encode()]).normal(size=dim) for t in texts])

    def text(labels: list[str]) -> str:
        draft = graph_draft.draft(labels, encode, name="any", vocabulary=Vocabulary.load())
        return graph_file.render(draft.values, header=["x"], comments=draft.comments)

    first = text(names)
    assert graph_file.check(first, Path("any.yaml")).fine == names
    assert text(data.draw(st.permutations(names))) == first


def test_a_clip_that_cannot_tell_labels_apart_is_named():
    flat = graph_draft.draft(
        LABELS, lambda t: np.ones((len(t), 3)) + 1e-4 * np.eye(len(t), 3), name="flat", vocabulary=WORDS
    )
    assert "cannot tell these labels apart" in flat.notes[0] and "everyday words" in flat.notes[-1]
    assert "dog and cat" in "".join(made(["cat", "dog", "car"]).notes).replace("cat and dog", "dog and cat")


def test_knowledge_of_everyday_words_is_one_where_groups_are_apart_and_half_where_nothing_is_known():
    group = {w: i for i, g in enumerate(graph_words.EVERYDAY) for w in g}
    words = graph_words.everyday_phrases()

    def told(texts):
        return np.eye(len(graph_words.EVERYDAY))[[group[t.split()[-1]] for t in texts]]

    assert graph_words.everyday_knowledge(graph_words.Texts(words, told)) == 1
    assert graph_words.everyday_knowledge(graph_words.Texts(words, lambda t: np.ones((len(t), 2)))) == 0.5


def test_words_that_the_model_was_taught_raise_no_doubt():
    assert [n for n in made(taught=LABELS).notes if "everyday" in n] == []
    assert [n for n in made(taught=LABELS[:5]).notes if "everyday" in n] != []


@pytest.fixture
def texts(monkeypatch):
    """The planted texts in the place of the CLIP worker."""
    monkeypatch.setattr(building.embedding, "embed", lambda texts, **_: (planted(texts), np.empty((0, 4))))


def test_a_rerun_gives_the_same_bytes_and_edits_are_never_lost(tmp_path, texts):
    out = tmp_path / "zoo.yaml"
    assert building.from_labels(LABELS, out).written
    before = out.read_bytes()
    assert not building.from_labels(LABELS[::-1], out).written and out.read_bytes() == before
    out.write_bytes(before + b"# mine\n")
    with pytest.raises(ValueError, match=r"may hold edits; choose another file, or overwrite it with --force"):
        building.from_labels(LABELS, out)
    assert out.read_bytes() == before + b"# mine\n"
    assert building.from_labels(LABELS, out, force=True).written and out.read_bytes() == before


def test_the_command_builds_from_a_coco_file_or_lines_and_check_accepts_it(tmp_path, texts, capsys):
    (tmp_path / "labels.json").write_text(json.dumps({"categories": [{"id": 1, "name": n} for n in LABELS]}))
    (tmp_path / "labels.txt").write_text("# mine\n" + "\n".join(reversed(LABELS)) + "\n\n")
    files = []
    for kind in ("json", "txt"):
        out = tmp_path / kind / "zoo.yaml"
        out.parent.mkdir()
        assert main(["concepts", "build", "--labels", str(tmp_path / f"labels.{kind}"), "--out", str(out)]) == 0
        assert main(["concepts", "check", str(out)]) == 0
        files.append(out.read_bytes())
    assert files[0] == files[1]
    assert b": family word of the vocabulary" in files[0] and b"# Doubt: this CLIP does not know" in files[0]
    assert main(["concepts", "build", "--labels", str(tmp_path / "labels.txt")]) == 1
    assert "--out FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dark", "expected a mapping with attributes"),
        ("attributes: [dark]\nfamilies: [dark]", '"dark" is an attribute and a family'),
        ("attributes: [yes]", "quote words like yes"),
        ("attributes: [dark]\ntemplates: [a thing]", "no single"),
        ("attributes: [", "not valid YAML"),
    ],
)
def test_a_bad_vocabulary_is_one_sentence_with_its_file(tmp_path, text, said):
    (tmp_path / "words.yaml").write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        Vocabulary.load(tmp_path / "words.yaml")
    assert "words.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", '{"categories": [{}]}', '{"categories": []}'])
def test_a_bad_labels_file_is_one_sentence(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ValueError, match=r"labels\.json: ") as caught:
        graph_file.read_labels(tmp_path / "labels.json")
    assert "\n" not in str(caught.value)


def test_odd_names_and_comments_cannot_break_the_file():
    node = {"coarse": "a: b #c", "abstract": ["yes", "null"], "prompts": ["'x' \"y\"", "{}"]}
    values = {"name": "no", "templates": ["a {}"], "concepts": {"1": node, "true": node, "- a": node, "über": node}}
    text = graph_file.render(values, header=[], comments={"a: b #c": "x\ny: z"})
    assert yaml.safe_load(text) == values


BASE = """# mine
name: base
concepts:
    a: {coarse: f}   # keep
    b:
        coarse: g

# the end
templates:
    - "a {}"
"""


def test_labels_are_added_below_the_last_and_every_other_line_stays():
    node = {"coarse": "h", "abstract": [], "prompts": ["c"]}
    text = graph_file.append(BASE, {"c": (node, "why")}, source="base.yaml")
    assert [line for line in text.splitlines() if line not in BASE.splitlines()] == [
        "    # why",
        "    c:",
        "      coarse: h",
        "      prompts: [c]",
    ]
    assert ConceptGraph.from_dict(yaml.safe_load(text)).fine == ["a", "b", "c"]
    for short in ("concepts:\n  a:\n    coarse: f", "concepts:\n  a: {coarse: f}\n# end"):
        assert set(yaml.safe_load(graph_file.append(short, {"c": (node, "")}, source="x"))["concepts"]) == {"a", "c"}
    with pytest.raises(ValueError, match="stand in braces"):
        graph_file.append("concepts: {a: {coarse: f}}", {"c": (node, "")}, source="x")
