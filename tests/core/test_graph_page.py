"""The graph as a picture, and where its counts come from."""

import json
from pathlib import Path

import pytest
from runs import graph

from gsal_fo.cli import main
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.pages import graph_page

GRAPHS = Path(__file__).parents[2] / "gsal_fo" / "graphs"


@pytest.mark.parametrize("name", ["thin_film", "coco"])
def test_no_two_nodes_stand_in_one_place_and_each_level_has_its_column(name: str):
    concepts = ConceptGraph.load(GRAPHS / f"{name}.yaml")
    place = graph_page.positions(concepts)
    assert set(place) == set(concepts.graph) and len(set(place.values())) == len(place)
    assert all(place[v][0] == graph_page.COLUMN[concepts.level(v)] for v in place)


def test_a_family_stands_beside_the_middle_of_its_labels():
    place = graph_page.positions(graph())
    # By family and name: void (subsurface) 0, crack 1, dent 2 (surface).
    assert [place[v] for v in ("void", "crack", "dent")] == [(1, 0), (1, 1), (1, 2)]
    assert place["subsurface"] == (0, 0) and place["surface"] == (0, 1.5)


def test_colors_follow_the_labeled_instances_of_every_level():
    fig = graph_page.figure(graph(), {"crack": 9, "dent": 0, "void": 99})
    color = dict(zip(fig.data[1].ids, fig.data[1].marker.color, strict=True))
    assert color["dent"] == 0 and color["crack"] == color["surface"] == 1 and color["void"] == 2  # log10(1 + n)
    assert color["dark"] == pytest.approx(2.0374, abs=1e-4)  # crack and void: log10(109)


def test_the_command_draws_a_page_that_needs_no_network(tmp_path: Path, capsys):
    coco = {"categories": [{"id": 7, "name": "void"}, {"id": 8, "name": "odd"}], "annotations": [{"category_id": 7}]}
    (tmp_path / "labels.json").write_text(json.dumps(coco))
    page = tmp_path / "graph.html"
    options = ["--html", str(page), "--counts", str(tmp_path / "labels.json"), "--json"]
    assert main(["concepts", "show", str(GRAPHS / "thin_film.yaml"), *options]) == 0
    assert json.loads(capsys.readouterr().out)["outside"] == ["odd"]
    text = page.read_text()
    assert "void, 1 labeled" in text and '<script src="http' not in text


ODD_COUNTS = ["[1]", '{"a": -1}', "no json", '{"categories": [], "annotations": [{}]}', '{"a": NaN}', '{"a": 1e400}']
ODD_COUNTS += ['{"a": 1' + "0" * 300 + "}", '{"categories": [{"id": [], "name": 1}], "annotations": []}', "[" * 10**5]


@pytest.mark.parametrize("text", ODD_COUNTS, ids=range(len(ODD_COUNTS)))
def test_counts_of_another_kind_are_refused_with_the_file(tmp_path: Path, text: str):
    (tmp_path / "counts.json").write_text(text)
    with pytest.raises(ValueError, match=r"counts\.json: (expected a COCO file|not valid JSON|lists and)"):
        graph_page.read_counts(tmp_path / "counts.json")


def test_a_file_of_somebody_stays_until_force(tmp_path: Path, capsys):
    page = tmp_path / "graph.html"
    page.write_text("my notes")
    command = ["concepts", "show", str(GRAPHS / "thin_film.yaml"), "--html", str(page)]
    assert main(command) == 1 and page.read_text() == "my notes"
    assert "graph.html exists" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0 and "plotly" in page.read_text()
    assert main(command) == 0, "its own page it writes again"
