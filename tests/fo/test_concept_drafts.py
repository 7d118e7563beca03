"""Concept graphs drafted from a dataset's own labels, and where candidates of its pool are looked for."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import gsal_fo.fo as gfo
from gsal_fo import cli
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.fo import concepts, runs
from gsal_fo.run_folder import shards

pytestmark = pytest.mark.usefixtures("warm")


def test_a_datasets_labels_become_a_graph_file_from_python_and_the_shell(dataset, tmp_path, capsys):
    made = gfo.build_concepts(dataset, tmp_path / "drawn.yaml")
    assert made.written and made.graph.fine == ["crack", "void"], "the labels that the field holds, each once"
    assert ConceptGraph.load(tmp_path / "drawn.yaml").fine == made.graph.fine
    before = (tmp_path / "drawn.yaml").read_bytes()
    assert cli.main(["concepts", "build", dataset.name, "--out", str(tmp_path / "drawn.yaml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] is False
    assert (tmp_path / "drawn.yaml").read_bytes() == before


def test_fields_without_labels_and_runs_that_are_no_scoring_are_refused(dataset, scored):
    with pytest.raises(ValueError, match='no field "boxes"'):
        concepts.label_names(dataset, "boxes")
    with pytest.raises(ValueError, match='field "gsal_proposals" of dataset'):
        concepts.label_names(scored.exists("gsal_proposals", False), "gsal_proposals")
    assert concepts.run_folder(scored) == Path(runs.load(scored).config.run_dir)
    gfo.select(scored, 2)
    with pytest.raises(ValueError, match="is a selection, not a scoring"):
        concepts.run_folder(scored, runs.select_keys(scored)[-1])


def labeled(row, number):
    vectors = np.random.default_rng(number).normal(size=(len(row["labels"]), 4))
    return {"id": row["id"], "role": "labeled", "embeddings": vectors.ravel(), "image": vectors[0], "dim": 4}


def test_candidates_of_a_scored_pool_are_shown(scored, tmp_path):
    """Every crop of the tiny worker is told to match no concept; each of its clusters holds crops of the pool."""
    folder = concepts.run_folder(scored)
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("manifest.parquet", "config.json", "concepts.yaml"):
        (copy / name).write_bytes((folder / name).read_bytes())
    manifest = pq.read_table(copy / "manifest.parquet").to_pylist()
    files = {row["id"]: row["filepath"] for row in manifest}
    for stage in ("proposals", "concepts", "assignment"):
        rows = list(shards.iter_rows(folder, stage))
        if stage == "assignment":
            rows = [{**row, "fine": [-2] * len(row["fine"])} for row in rows]
        if stage == "proposals":  # the tiny worker leaves out what ranking does not read
            rows = [{**row, "filepath": files[row["id"]]} for row in rows]
        if stage == "concepts":
            rows += [labeled(row, number) for number, row in enumerate(manifest) if row["labels"]]
        shards.write_part(copy, stage, rows, digest="tiny")
    shards.write_record({"assign": "prototypes", "limit": 0.9}, copy / "assigned.json")
    info = runs.load(scored)
    info.config.run_dir = str(copy)
    scored.update_run_config(info.key, info.config)
    made = gfo.propose_concepts(scored, tmp_path / "page.html")
    assert made.found.unmatched == 18, "nine pool images of two proposals"
    assert made.page.is_file() and made.sheet.is_file() and made.built is None
