"""Candidates of a pool: planted clusters are found, named where CLIP can, shown, and added only on request."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from gsal_fo.cli import main
from gsal_fo.concepts.build import building
from gsal_fo.concepts.build import candidates as graph_candidates
from gsal_fo.concepts.build.vocabulary import EVERYDAY, Vocabulary
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.run_folder import shards

GRAPH = "# mine\nname: tiny\nconcepts:\n  disk: {coarse: blob}  # keep\n  bar: {coarse: line}\n"
DIM = 6
AXES = {"disk": 0, "bar": 1, "ring": 2, "star": 3}
KIND = ("disk", "ring", "ring", "star", "odd")  # what the crops of each pool image show


def near(axis: int, seed: tuple[int, ...]) -> np.ndarray:
    v = 0.1 * np.random.default_rng(seed).normal(size=DIM)
    v[axis] += 1
    return v / np.linalg.norm(v)


def write_run(folder: Path, *, assign: str = "prototypes", reverse: bool = False, images: int = 8) -> Path:
    """8 pool images of 5 crops: a disk, two rings, a star, and one like nothing else; 4 labeled images."""
    folder.mkdir()
    Image.new("RGB", (40, 40), "gray").save(folder / "picture.png")
    rows: dict[str, list[dict[str, Any]]] = {"manifest": [], "proposals": [], "concepts": [], "assignment": []}
    boxes = [v for i in range(len(KIND)) for v in (0.1 * i, 0.1, 0.3, 0.3)]
    for i in range(images):
        head = {"id": f"p{i}", "filepath": str(folder / "picture.png")}
        odd = np.eye(DIM)[4 + i % 2] * (-1) ** (i // 2)
        vectors = [odd if kind == "odd" else near(AXES[kind], (i, n)) for n, kind in enumerate(KIND)]
        rows["manifest"].append({**head, "role": "pool"})
        rows["proposals"].append(
            {**head, "width": 40, "height": 40, "boxes": boxes, "scores": [1.0] * 5, "source": "x"}
        )
        rows["concepts"].append({**head, "role": "pool", "embeddings": np.concatenate(vectors), "dim": DIM})
        fine = [1, 0, 0, 0, -1] if assign == "clip" else [1, -2, -2, -2, -2]
        prob = [0.9, 0.4, 0.4, 0.4, 0.9]
        rows["assignment"].append({"id": f"p{i}", "role": "pool", "fine": fine, "prob": prob, "margin": prob})
    for i in range(4):
        head, name = {"id": f"l{i}", "filepath": str(folder / "picture.png"), "role": "labeled"}, ["disk", "bar"][i % 2]
        rows["manifest"].append({**head, "boxes": [0.1, 0.1, 0.3, 0.3], "labels": [name]})
        rows["concepts"].append({**head, "embeddings": near(AXES[name], (99, i)), "dim": DIM})
    table = pa.Table.from_pylist(rows.pop("manifest"), schema=shards.MANIFEST)
    shards.write_table(table, folder / "manifest.parquet")
    for stage, all_rows in rows.items():
        if stage == "concepts" and assign == "detector":
            continue
        ordered = all_rows[::-1] if reverse else all_rows
        for start in range(0, len(ordered), 3):
            shards.write_part(folder, stage, ordered[start : start + 3], digest="d")
    shards.write_json({"assign": assign, "limit": 0.4 if assign == "prototypes" else None}, folder / "assigned.json")
    shards.write_json({"kind": "score", "config": {"concepts": {"pad": 0.2}}}, folder / "config.json")
    (folder / "concepts.yaml").write_text(GRAPH)
    return folder


def no_embedding(crops):
    raise AssertionError("the run holds embeddings")


def find(run: Path, **more: Any) -> graph_candidates.Found:
    return graph_candidates.find(run, ConceptGraph.load(run / "concepts.yaml"), **{"embed": no_embedding} | more)


def told(found: graph_candidates.Found) -> list[Any]:
    return [(c.name, c.crops, c.images, [(e.image, e.number) for e in c.examples]) for c in found.candidates]


def test_the_planted_clusters_are_the_candidates_and_odd_crops_are_none(tmp_path):
    found = find(write_run(tmp_path / "run"))
    assert (found.unmatched, found.sampled, found.width) == (32, 32, 0.4)
    assert [(c.crops, c.images) for c in found.candidates] == [(16, 8), (8, 8)]
    rings, stars = found.candidates
    assert {e.number for e in rings.examples} == {1, 2} and {e.number for e in stars.examples} == {3}
    assert len(rings.examples) == 12 and all(e.box[0] == pytest.approx(0.1 * e.number) for e in rings.examples)
    assert rings.nearest and rings.nearest[0] in ("disk", "bar") and 0.5 < rings.nearest[1] < 1.5


def test_the_order_of_images_and_parts_changes_nothing(tmp_path):
    assert told(find(write_run(tmp_path / "a"))) == told(find(write_run(tmp_path / "b", reverse=True)))


def test_under_clip_the_unsure_are_unmatched_and_background_is_not(tmp_path):
    found = find(write_run(tmp_path / "run", assign="clip"))
    assert found.unmatched == 24 and {e.number for c in found.candidates for e in c.examples} <= {1, 2, 3}
    assert [c.nearest for c in found.candidates] == [None] * len(found.candidates)


def test_after_the_detector_the_crops_are_embedded_and_unreadable_ones_left_out(tmp_path):
    seen = []

    def embed(crops):
        seen.extend(crops)
        rows = np.stack([near(2 + int(box[0] > 0.25), (len(crops), i)) for i, (_, box) in enumerate(crops)])
        rows[0] = np.nan
        return rows

    found = find(write_run(tmp_path / "run", assign="detector"), embed=embed)
    assert len(seen) == found.unmatched == 32 and found.sampled == 31
    assert all(Path(path).name == "picture.png" for path, _ in seen)


def test_more_crops_than_the_cap_are_sampled_the_same_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_candidates, "CAP", 20)
    a, b = find(write_run(tmp_path / "a")), find(write_run(tmp_path / "b", reverse=True))
    assert a.unmatched == 32 and a.sampled == 20 and told(a) == told(b)


def clip(word_of_crop: str, *, knows: bool = True):
    """A CLIP for which every crop shows one word; ``knows``: everyday words of a kind are alike."""
    group = {w: i for i, g in enumerate(EVERYDAY) for w in g}
    others: dict[str, int] = {}

    def rows(words):
        out = np.zeros((len(words), 200))
        for row, word in zip(out, words, strict=True):
            row[(group[word] if knows else 0) if word in group else others.setdefault(word, 10 + len(others))] = 1
        return out

    def embed(texts, crops):
        said = rows([t.split()[-1] for t in texts])
        return said, np.repeat(rows([word_of_crop]), len(crops), axis=0)

    return embed


def test_clip_names_the_largest_candidate_by_the_word_its_crops_show(tmp_path):
    run = write_run(tmp_path / "run")
    graph, words = ConceptGraph.load(run / "concepts.yaml"), Vocabulary(("dark",), ("ringlet", "starlet", "blob"))
    found = find(run)
    graph_candidates.name_them(found, graph, words, clip("ringlet"))
    assert [c.name for c in found.candidates] == ["ringlet", "candidate_2"]  # a word names one candidate
    found = find(run)
    graph_candidates.name_them(found, graph, words, clip("blob"))  # the graph has that name: it is no word to give
    assert [c.name for c in found.candidates] == ["candidate_1", "candidate_2"]


def test_a_clip_without_knowledge_of_words_names_nothing_and_says_so(tmp_path):
    run = write_run(tmp_path / "run")
    found = find(run)
    words = Vocabulary(("dark",), ("ringlet", "starlet"))
    graph_candidates.name_them(found, ConceptGraph.load(run / "concepts.yaml"), words, clip("ringlet", knows=False))
    assert [c.name for c in found.candidates] == ["candidate_1", "candidate_2"] and "numbered" in found.notes[0]


@pytest.fixture
def numbered(monkeypatch):
    """A CLIP that knows no word in the place of the worker."""
    monkeypatch.setattr(building.embedding, "embed", lambda t, c, **_: clip("x", knows=False)(t, c))


def test_the_command_shows_pictures_and_changes_no_graph_unless_asked(tmp_path, numbered, capsys):
    run, page, out = write_run(tmp_path / "run"), tmp_path / "seen.html", tmp_path / "more.yaml"
    command = ["concepts", "build", "--run", str(run), "--page", str(page)]
    assert main([*command, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [c["name"] for c in data["candidates"]] == ["candidate_1", "candidate_2"] and data["out"] is None
    text = page.read_text()
    assert text.count("<article>") == 2 and text.count("data:image/jpeg") == 20 and "http" not in text
    with Image.open(page.with_suffix(".png")) as sheet:
        assert sheet.width == 12 * 96
    assert (run / "concepts.yaml").read_text() == GRAPH and not out.exists()
    first = page.read_bytes()

    add = ["--add", "candidate_1=ring", "--add", "candidate_2", "--out", str(out)]
    assert main([*command, *add]) == 0 and page.read_bytes() == first
    made = out.read_text()
    assert made.startswith(GRAPH) and "  # Candidate concept candidate_1 of run: 16 crops in 8 images" in made
    assert set(yaml.safe_load(made)["concepts"]) == {"disk", "bar", "ring", "candidate_2"}
    assert main(["concepts", "check", str(out)]) == 0
    assert main([*command, *add]) == 0 and out.read_text() == made  # a rerun finds its own file
    assert main([*command, "--add", "candidate_1", "--out", str(out)]) == 1 and out.read_text() == made
    both = ["--add", "candidate_1=thing", "--add", "candidate_2=thing", "--out", str(out), "--force"]
    assert main([*command, *both]) == 0  # one name for two: they are one concept
    assert set(yaml.safe_load(out.read_text())["concepts"]) == {"disk", "bar", "thing"}
    assert "candidate_1 of run" in out.read_text() and "candidate_2 of run" in out.read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--add", "candidate_9", "--out", "OUT"], 'no candidate "candidate_9"; there are candidate_1, candidate_2'),
        (["--add", "candidate_1=disk", "--out", "OUT"], '"disk" is a name of the graph already'),
        (["--add", "candidate_1"], "both --add NAME and --out FILE"),
        (["--labels", "x.txt"], "takes neither --labels"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path, numbered, capsys, more, said):
    run = write_run(tmp_path / "run")
    more = [str(tmp_path / "out.yaml") if m == "OUT" else m for m in more]
    assert main(["concepts", "build", "--run", str(run), "--page", str(tmp_path / "p.html"), *more]) == 1
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1] and not (tmp_path / "out.yaml").exists()


def test_a_page_or_picture_of_somebody_stays_and_nothing_is_computed(tmp_path, numbered, capsys, monkeypatch):
    run, page = write_run(tmp_path / "run"), tmp_path / "seen.html"
    command = ["concepts", "build", "--run", str(run), "--page", str(page)]
    find = building.graph_candidates.find
    for mine in (page, page.with_suffix(".png")):
        monkeypatch.setattr(building.graph_candidates, "find", lambda *a, **k: pytest.fail("it was computed"))
        mine.write_text("my notes")
        assert main(command) == 1 and mine.read_text() == "my notes"
        assert f"{mine} exists" in capsys.readouterr().err
        monkeypatch.setattr(building.graph_candidates, "find", find)
        assert main([*command, "--force"]) == 0 and mine.read_bytes() != b"my notes"
    assert main(command) == 0, "its own files it writes again"
    assert main(["concepts", "build", "--run", str(run), "--page", str(tmp_path / "seen.png")]) == 1
    assert "end in .html" in capsys.readouterr().err


def test_a_folder_that_is_no_scoring_is_refused(tmp_path, capsys):
    assert main(["concepts", "build", "--run", str(tmp_path), "--page", str(tmp_path / "p.html")]) == 1
    assert "not a GSAL run folder" in capsys.readouterr().err
