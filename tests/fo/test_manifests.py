"""A manifest that a person or a tool has changed: one sentence, never an exception and never a label."""

import copy
import json

import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo.exchange import manifests

ODD = [None, True, 0, -1, 1.5, 10**400, "", "\0", "\ud800", [], [1], {}, {"$oid": 3}, [[]], ["a", 1, 2, 3]]


@pytest.fixture(scope="module")
def written(template, tmp_path_factory):
    """An export's folder, its manifest, and the dataset."""
    clone = template.clone("manifests")
    out = gfo.export(gfo.select(clone, 2), tmp_path_factory.mktemp("batch") / "out")
    yield clone, out, json.loads((out / "manifest.json").read_text())
    clone.delete()


def places(value, path=()):
    """Every place in a JSON value: keys of objects, numbers of lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    out = copy.deepcopy(value)
    *way, last = path
    place = out
    for key in way:
        place = place[key]
    if new is KeyError:
        del place[last]
    else:
        place[last] = new
    return out


def test_whatever_one_entry_is_changed_to_is_a_sentence_or_changes_nothing(written):
    """Each place of the manifest in turn, set to each odd value or removed: ingest takes nothing that was sent."""
    _, out, whole = written
    path, refused = out / "manifest.json", 0
    for place in places(whole):
        if not place or place[0] in ("digests", "missing", "written") or (len(place) > 1 and place[0] == "files"):
            continue
        for odd in [*ODD, KeyError] if len(place) > 1 else [ODD[-1], KeyError]:
            path.write_text(json.dumps(changed(whole, place, odd)))
            try:
                about = manifests.read(path)
            except ValueError as error:
                refused += 1
                assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) <= 400
                continue
            for sent in manifests.sent(about).values():
                assert all(len(box) == 4 for s in sent for _, box in s.boxes)
    path.write_text(json.dumps(whole))
    assert refused > 200


@pytest.mark.parametrize(
    ("place", "odd", "said"),
    [
        (("images", 1, "file"), ["a.png"], "images[1] has no text named file"),
        (("images", 1, "id"), {"$oid": 3}, "images[1] has no text named id"),
        (("images", 0, "source"), [], "images[0] has no text named source"),
        (("images", 0, "sha256"), KeyError, "images[0] has no text named sha256"),
        (("images", 0, "boxes"), [[]], "images[0] has a box that is not [label, x, y, width, height]"),
        (("images", 0, "boxes"), [["a", 1, 2, 3, 10**400]], "images[0] has a box that is not"),
        (("images", 1), 7, "images[1] is no object"),
        (("images",), {}, "images is no list"),
        (("files",), [1], "files is no list of names"),
        (("written",), {"a": 3}, "written does not hold a digest for each file"),
        (("kind",), "other", "is no manifest of a GSAL export"),
    ],
)
def test_an_altered_manifest_is_one_sentence_and_nothing_is_taken(written, tmp_path, place, odd, said):
    dataset, out, whole = written
    before = dataset.values("ground_truth.detections.label")
    given = tmp_path / "manifest.json"
    given.write_text(json.dumps(changed(whole, place, odd)))
    with pytest.raises(ValueError) as error:
        gfo.ingest(dataset, out, manifest=given, accept_prelabels=True)
    assert said in str(error.value) and str(given) in str(error.value) and "\n" not in str(error.value)
    assert dataset.values("ground_truth.detections.label") == before


@pytest.mark.parametrize("name", ["id", "file"])
def test_an_image_that_is_listed_twice_is_named(written, tmp_path, name):
    _, _, whole = written
    given = tmp_path / "manifest.json"
    given.write_text(json.dumps(changed(whole, ("images", 1, name), whole["images"][0][name])))
    with pytest.raises(ValueError, match=rf"two images have the {name} '{whole['images'][0][name]}'"):
        manifests.read(given)


def test_a_broken_manifest_beside_the_labels_is_not_passed_over_but_another_tools_is(written, tmp_path):
    dataset, out, whole = written
    text = json.dumps(whole)
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "annotations.json").write_text((out / "annotations.json").read_text())
    (labels / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"manifest.json is no readable manifest"):
        gfo.ingest(dataset, labels)
    (labels / "manifest.json").write_text('{"name": "a web app"}')
    assert len(gfo.ingest(dataset, labels).untouched) == 2
