"""Every command killed at its writes: given again, it leaves what an uninterrupted one leaves."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo import locks
from gsal_fo.fo.dataset import records
from tests.fo_pool import box
from tests.mortal import Ended, Mortals, on, points

MOST = 8  # points per command, where GSAL_EVERY_KILL is not set


@pytest.fixture(scope="module")
def mortals() -> Mortals:
    return Mortals()


@dataclass
class Place:
    """A scored dataset with a run folder of its own, so that nothing is shared between two runs of a command."""

    dataset: fo.Dataset
    folder: Path

    def code(self, command: str) -> str:
        """``command`` on the dataset, as Python that also knows ``out``, a folder of this place; workers are tiny, and
        ``GSAL_HOME`` is the place's."""
        workers = str(Path(__file__).parents[1] / "workers")
        prepare = f"""
import os
from gsal_fo.fo import scoring, training
scoring.WORKER = training.WORKER = "tiny_worker"
out = Path({str(self.folder)!r})
os.environ.update(GSAL_HOME=str(out / "home"), PYTHONPATH={workers!r})
"""
        return on(self.dataset.name, command, prepare)

    def named(self, text: str) -> str:
        """Text without what differs between places."""
        name = self.dataset.name
        return text.replace(str(self.folder), "FOLDER").replace(name, "DATASET").replace(self.dataset.slug, "DATASET")

    def state(self) -> dict[str, Any]:
        """All that a person could miss: samples, tags, records, views, indexes, files, ledgers; times and ids of labels
        differ between any two runs and are left out."""
        self.dataset.reload()
        dataset, db = self.dataset, foo.get_db_conn()
        configs = {key: _plain(dataset.get_run_info(key).config.serialize(), self) for key in dataset.list_runs()}
        for key in gfo.runs.select_keys(dataset):
            configs[key]["picks"] = gfo.runs.picks(dataset, key)
        return {
            "samples": {s["_id"]: _plain(s, self) for s in dataset._sample_collection.find()},
            "schema": sorted(dataset.get_field_schema(flat=True)),
            "records": configs,
            "order": [gfo.runs.score_keys(dataset), gfo.runs.select_keys(dataset)],
            "views": {name: _stages(dataset.load_saved_view(name)) for name in dataset.list_saved_views()},
            "workspaces": dataset.list_workspaces(),
            "indexes": sorted(dataset.get_index_information()),
            "sidebar": _plain(dataset.app_config.to_dict(), self),
            "files": {
                self.named(str(p.relative_to(self.folder))): _content(p, self)
                for p in sorted(self.folder.rglob("*"))
                if p.is_file()
            },
            "locks": list(db[locks.COLLECTION].find({"_id": dataset._doc.id})),
            "prepared": [n for n in db.list_collection_names() if n.startswith("gsal_prepared")],
            "annotations": dataset.list_annotation_runs(),
            "lost": records.broken(dataset),
        }


TIMES = ("last_modified_at", "created_at", "_id", "_dataset_id", "gsal_sent", "when", "time", "seconds", "since")
# A checksum is of a content that is compared by itself, and that holds the dataset's name.
ONES_OWN = ("hash", "previous", "operation", "dataset", "dataset_id", "ledger", "cancels", "count", "identity")
ONES_OWN += ("checksum", "run_id", "ingest")


def _plain(value: Any, place: Place) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v, place) for k, v in value.items() if k not in TIMES + ONES_OWN}
    if isinstance(value, list):
        return [_plain(v, place) for v in value]
    if isinstance(value, str):
        return place.named(value)
    return value


def _difference(a: Any, b: Any, path: str = "") -> str:
    """Where two states differ first."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [k for k in {**a, **b} if a.get(k, "absent") != b.get(k, "absent")]
        return _difference(a.get(keys[0], "absent"), b.get(keys[0], "absent"), f"{path}/{keys[0]}")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        k = next(k for k, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1])
        return _difference(a[k], b[k], f"{path}/{k}")
    return f"{path}: {str(a)[:200]} -> {str(b)[:200]}"


def _stages(view: fo.DatasetView) -> list[str]:
    return [f"{type(s).__name__} {[v for k, v in s._kwargs() if not k.startswith('_')]}" for s in view._stages]


def _content(path: Path, place: Place) -> Any:
    if path.name == "ledger.jsonl":
        return [_plain(json.loads(line), place) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return _plain(json.loads(path.read_text()), place)
    return path.stat().st_size if path.name not in (".lock", "worker.log") else None


@pytest.fixture
def place_of(template, tmp_path) -> Iterator[Any]:
    """Makes places, each by cloning the scored template and its run folder."""
    made: list[fo.Dataset] = []

    def make(name: str) -> Place:
        clone = template.clone(f"{tmp_path.name}-{name}")
        made.append(clone)
        folder = tmp_path / name
        info = gfo.runs.load(clone)
        shutil.copytree(info.config.run_dir, folder / "run")
        info.config.run_dir = str(folder / "run")
        clone.update_run_config(info.key, info.config)
        clone.persistent = True
        maps = clone.exists("gsal_map")
        maps.set_values(
            "gsal_map.map_path", [str(folder / "run" / "maps" / Path(m).name) for m in maps.values("gsal_map.map_path")]
        )
        return Place(clone, folder)

    yield make
    for dataset in made:
        dataset.delete()


def swept(
    mortals: Mortals, place_of: Any, command: str, *, before: Any = None, again: str | None = None, most: int = MOST
) -> list[str]:
    """Kill a command at its writes, each time on a place of its own, give it again, and compare with one that nobody
    killed. Returns what differs, one line per point. ``again``: the same command where it cannot be given blindly."""

    def ready(name: str) -> Place:
        place = place_of(name)
        if before:
            before(place)
        return place

    for name in ("first", "whole"):  # the first of a database also makes the indexes of its collections
        whole = ready(name)
        done = mortals.run(whole.code(command))
        assert not done.error, done.error
    expected = whole.state()
    out = []
    for at in points(len(done.writes), most):
        place = ready(f"at{at}")
        first: Ended = mortals.run(place.code(command), at=at)
        assert not first.error, (at, first.error)
        second = mortals.run(place.code(again or command))
        got = place.state()
        if got != expected or second.error:
            differs = _difference(expected, got) if got != expected else ""
            out.append(f"{at} of {len(done.writes)}, before {done.writes[at - 1]}: {differs} {second.error[-300:]}")
    print(f"{command}: {len(done.writes)} writes, {len(out)} differ")
    return out


def test_a_killed_select_makes_one_round(mortals, place_of):
    assert swept(mortals, place_of, "gfo.select(ds, 3)") == []


def test_a_killed_cancel_takes_back_one_round(mortals, place_of):
    def two_rounds(place: Place) -> None:
        gfo.select(place.dataset, 2)
        second = gfo.select(place.dataset, 2)
        sample = second.first()
        sample["ground_truth"] = fo.Detections(detections=[box("petal")])
        sample.save()

    assert swept(mortals, place_of, "gfo.cancel(ds)", before=two_rounds) == []


def test_a_killed_cancel_of_the_only_round_removes_its_fields(mortals, place_of):
    def one_round(place: Place) -> None:
        gfo.select(place.dataset, 2)
        gfo.setup_views(place.dataset)

    assert swept(mortals, place_of, "gfo.cancel(ds)", before=one_round) == []


def test_a_killed_deletion_of_a_selection_is_finished_by_the_next_command(mortals, place_of):
    def one_round(place: Place) -> None:
        gfo.select(place.dataset, 2)

    key = "gsal_select_001"
    again = f"ds.delete_run({key!r}) if ds.has_run({key!r}) else gfo.status(ds)"  # FiftyOne refuses a run that is gone
    assert swept(mortals, place_of, f"ds.delete_run({key!r})", before=one_round, again=again) == []


def test_a_killed_deletion_of_a_scoring_is_finished_by_the_next_command(mortals, place_of):
    key = "gsal_score_001"
    again = f"ds.delete_run({key!r}) if ds.has_run({key!r}) else gfo.status(ds)"
    assert swept(mortals, place_of, f"ds.delete_run({key!r})", again=again) == []


SCORE = "gfo.score(ds, concepts=out / 'film.yaml', detector='grid', params={'lam': 2.0})"
WAITS = f"""
import time
while True:
    try:
        {SCORE}
        break
    except ValueError as error:
        if "in use by another run" not in str(error):  # the killed one's worker, which ends by itself
            raise
        time.sleep(0.05)
"""


def test_a_killed_scoring_is_one_scoring(mortals, place_of, graph):
    def with_graph(place: Place) -> None:
        shutil.copy(graph, place.folder / "film.yaml")

    assert swept(mortals, place_of, SCORE, before=with_graph, again=WAITS) == []


def test_a_killed_select_after_another_scoring_wrote_the_fields_makes_one_round(mortals, place_of, graph):
    """The fields are written whole, maps included."""

    def scored_twice(place: Place) -> None:
        shutil.copy(graph, place.folder / "film.yaml")
        done = mortals.run(place.code(SCORE))
        assert not done.error, done.error

    command = "gfo.select(ds, 3, run_key='gsal_score_001')"
    assert swept(mortals, place_of, command, before=scored_twice) == []


def in_a_round(place: Place) -> None:
    """Three images in a round, two of them labeled by somebody in another field."""
    picked = gfo.select(place.dataset, 3).values("id")
    place.dataset.add_sample_field("theirs", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    labels = [fo.Detections(detections=[box("petal"), box("void", x=0.6)]), fo.Detections()]
    place.dataset.set_values("theirs", dict(zip(picked, labels, strict=False)), key_field="id")


@pytest.mark.parametrize("field", ["ground_truth", "new"])
def test_a_killed_ingest_takes_the_labels_once(mortals, place_of, field):
    command = f"gfo.ingest(ds, 'theirs', label_field={field!r})"
    assert swept(mortals, place_of, command, before=in_a_round) == []


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_a_killed_export_is_one_export(mortals, place_of, format):
    command = f"gfo.export(ds.match_tags('gsal_round_001'), out / 'batch', {format!r})"
    assert swept(mortals, place_of, command, before=in_a_round) == []


def test_a_killed_export_over_an_earlier_one_replaces_it(mortals, place_of):
    def exported(place: Place) -> None:
        in_a_round(place)
        gfo.export(place.dataset.match_tags("gsal_round_001").limit(2), place.folder / "batch", "voc")

    command = "gfo.export(ds.match_tags('gsal_round_001'), out / 'batch', 'coco')"
    assert swept(mortals, place_of, command, before=exported) == []


DESK = "from tests.fo.test_annotating import DeskConfig\n"


def test_a_killed_annotate_hands_over_once(mortals, place_of):
    """To a backend in memory: what FiftyOne keeps of its run is what a real one's would be."""
    command = f"{DESK}gfo.annotate(ds.match_tags('gsal_round_001'), 'desk', backend=DeskConfig)"
    assert swept(mortals, place_of, command, before=in_a_round) == []


def test_killed_setting_up_of_views_is_finished_by_setting_up(mortals, place_of):
    assert swept(mortals, place_of, "gfo.setup_views(ds)", before=in_a_round) == []
