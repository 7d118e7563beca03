"""Names that tools make of an image's: each means the sample that it can only mean, or is listed."""

import unicodedata
from pathlib import Path

import pytest

from gsal_fo.fo.exchange.formats import Labeled, file_digest
from gsal_fo.fo.exchange.matching import match
from tests.label_files import answers, boxes, coco, pool, read, write


def found(dataset, *names, manifest=None, folder=Path("nowhere")):
    """For each image (a name, or several), the sample's path below photos, None, or "?" where in doubt."""
    images = [Labeled(n) if isinstance(n, str) else Labeled(n[0], also=list(n[1:])) for n in names]
    out = match(dataset, folder, images, manifest)
    paths = dict(zip(*dataset.values(["id", "filepath"]), strict=True))
    below = {k: paths[s].rpartition("/photos/")[2] for k, s in out.samples.items()}
    return [below.get(k, "?" if k in out.ambiguous else None) for k in range(len(images))]


NAMES = {
    "plain": "film 1.jpg",
    "folder": "train2017/film 1.jpg",
    "windows": "C:\\Users\\me\\data\\film 1.jpg",
    "share": "\\\\server\\share\\film 1.jpg",
    "absolute": "/mnt/other/film 1.jpg",
    "dots": "..\\..\\film 1.jpg",
    "s3": "s3://bucket/2024/line-3/film 1.jpg",
    "gs": "gs://bucket/film%201.jpg",
    "azure": "azure-blob://container/film 1.jpg",
    "web": "https://bucket.s3.amazonaws.com/set/film%201.jpg?X-Amz-Date=1&X=2#top",
    "coco url": "http://images.cocodataset.org/val2017/film%201.jpg",
    "quoted": "film%201.jpg",
    "local files": "/data/local-files/?d=photos/film%201.jpg",
    "local files, windows": "/data/local-files/?d=photos%5Cfilm%201.jpg",
    "upload": "/data/upload/7/1a2b3c4d-film_1.jpg",
    "upload base": "1a2b3c4d-film 1.jpg",
    "storage": "images/1a2b3c4d__film 1.jpg",
    "storage stem": "1a2b3c4d__film 1",
    "storage quoted": "1a2b3c4d__film%201.jpg",
    "roboflow": "film-1_jpg.rf.0123456789abcdef0123456789abcdef.jpg",
    "roboflow stem": "film-1_jpg.rf.0123456789abcdef0123456789abcdef",
    "roboflow of an upload": "1a2b3c4d-film_1_jpg.rf.0123456789abcdef0123456789abcdef.jpg",
    "stem": "film 1",
    "other suffix": "film 1.png",
    "other case": "FILM 1.JPG",
}


@pytest.mark.parametrize("kind", NAMES)
def test_what_tools_make_of_a_name_is_undone(tmp_path, kind):
    dataset = pool(tmp_path / "photos", ["film 1.jpg", "film 10.jpg", "other.jpg"])
    assert found(dataset, NAMES[kind]) == ["film 1.jpg"]


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_are_the_same(tmp_path, stored):
    dataset = pool(tmp_path / "photos", [unicodedata.normalize(stored, "Prüfung é.jpg")])
    for form in ("NFC", "NFD"):
        assert found(dataset, unicodedata.normalize(form, "Prüfung é.jpg"))[0] is not None


@pytest.mark.parametrize(
    "name", ["film.jpg", "film 2.jpg", "xfilm 1.jpg", "ilm 1.jpg", "1a2b3c4-film 1.jpg", "", "/", "."]
)
def test_other_names_match_nothing(tmp_path, name):
    dataset = pool(tmp_path / "photos", ["film 1.jpg"])
    assert found(dataset, name) == [None]


def test_dots_in_a_name_are_no_suffix(tmp_path):
    dataset = pool(tmp_path / "photos", ["film.v1.jpg", "film.v2.jpg", "film.jpg"])
    assert found(dataset, "film.v2", "film.v1.png", "film", "film.v3") == [
        "film.v2.jpg",
        "film.v1.jpg",
        "film.jpg",
        None,
    ]


def test_a_plain_name_that_looks_like_an_upload_is_plain(tmp_path):
    dataset = pool(tmp_path / "photos", ["deadbeef-a.jpg", "a.jpg"])
    assert found(dataset, "deadbeef-a.jpg", "a.jpg") == ["deadbeef-a.jpg", "a.jpg"]
    assert found(dataset, "0a1b2c3d-deadbeef-a.jpg") == ["deadbeef-a.jpg"]


def test_folders_tell_images_of_one_name_apart_and_without_them_all_are_listed(tmp_path):
    dataset = pool(tmp_path / "photos", ["cam1/a.jpg", "cam2/a.jpg", "cam1/b.jpg"])
    names = ["cam1/a.jpg", "x/cam2/a.jpg", "C:\\cam2\\a.jpg", "a.jpg", "cam3/a.jpg", "a.png", "cam1/b.jpg"]
    wanted = ["cam1/a.jpg", None, "cam2/a.jpg", "?", "?", "?", "cam1/b.jpg"]
    # The second is the same sample as the third, by as many folders: both stay.
    assert found(dataset, *names) == [w or "cam2/a.jpg" for w in wanted]


def test_case_decides_only_where_spelling_does_not(tmp_path):
    dataset = pool(tmp_path / "photos", ["a/film.jpg", "b/FILM.jpg"])
    assert found(dataset, "film.jpg", "FILM.jpg", "Film.jpg") == ["a/film.jpg", "b/FILM.jpg", "?"]


def test_a_stem_that_two_images_share_is_listed(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg", "a.png", "b.png"])
    assert found(dataset, "a", "a.bmp", "a.png", "b.jpg") == ["?", "?", "a.png", "b.png"]


def test_the_better_fitting_of_two_names_for_one_sample_wins(tmp_path):
    dataset = pool(tmp_path / "photos", ["train/a.jpg"])
    assert found(dataset, "val/a.jpg", "train/a.jpg") == [None, "train/a.jpg"]
    assert found(dataset, "a.png", "x/a.jpg") == [None, "train/a.jpg"]


def test_names_of_one_image_that_mean_two_samples_are_listed(tmp_path):
    """The <filename> of an XML was copied from another one."""
    dataset = pool(tmp_path / "photos", ["a.jpg", "b.jpg"])
    assert found(dataset, ("a.jpg", "b"), ("a.jpg", "a"), ("gone.jpg", "b")) == ["?", "a.jpg", "b.jpg"]


def test_doubtful_names_are_said_with_the_reason(tmp_path):
    dataset = pool(tmp_path / "photos", ["cam1/a.jpg", "cam2/a.jpg", "b.jpg"])
    notes = [{"bbox": [1, 2, 3, 4]}, {"image_id": 2, "bbox": [1, 2, 3, 4]}, {"image_id": 3, "bbox": [1, 2, 3, 4]}]
    out = read(dataset, write(tmp_path / "c.json", coco(notes, ["a.jpg", "b.jpg", "stranger.jpg"])))
    assert set(answers(dataset, out)) == {"b.jpg"}
    assert out.unmatched == ["a.jpg", "stranger.jpg"]
    assert out.unread == ["a.jpg: its name fits 2 samples; it was left out"]


def test_names_too_long_or_with_zeros_match_nothing_and_raise_nothing(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    entry = {"id": dataset.first().id, "file": "a.jpg", "source": "/x/a.jpg", "sha256": "0" * 64}
    names = ["x" * 5000, "a\0b.jpg", "/" * 5000, "[::1", "http://[bad/x.jpg", "\ud800.jpg"]
    assert found(dataset, *names, manifest={"images": [entry]}, folder=tmp_path) == [None] * 6


def test_with_a_manifest_only_its_images_are_meant_under_both_their_names(tmp_path):
    dataset = pool(tmp_path / "photos", ["cam1/a.jpg", "cam2/a.jpg", "b.jpg"])
    ids = dict(
        zip(
            (Path(p).parent.name + "/" + Path(p).name for p in dataset.values("filepath")),
            dataset.values("id"),
            strict=True,
        )
    )
    sent = {"id": ids["cam1/a.jpg"], "file": f"a-{ids['cam1/a.jpg']}.jpg", "source": "/y/cam1/a.jpg", "sha256": ""}
    assert found(dataset, "b.jpg", sent["file"], manifest={"images": [sent]}) == [None, "cam1/a.jpg"]
    assert found(dataset, "a.jpg", "b.jpg", manifest={"images": [sent]}) == ["cam1/a.jpg", None]


def test_a_renamed_file_near_the_labels_is_found_by_its_content(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    source = Path(dataset.first().filepath)
    entry = {"id": dataset.first().id, "file": "a.jpg", "source": str(source), "sha256": file_digest(source)}
    write(tmp_path / "out" / "images" / "renamed.jpg", source.read_bytes())
    assert found(dataset, "renamed.jpg", manifest={"images": [entry]}, folder=tmp_path / "out") == ["a.jpg"]


def test_an_image_in_two_splits_is_one_where_they_agree_and_listed_where_not(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    same, one, other = ({"image_id": k, "bbox": [k, v, 9, 9]} for k, v in ((1, 5), (2, 5), (2, 6)))
    labeled = {"image_id": 3, "bbox": [1, 2, 3, 4]}
    write(tmp_path / "l" / "train" / "_annotations.coco.json", coco([same, one, labeled], names))
    write(tmp_path / "l" / "valid" / "_annotations.coco.json", coco([same, other], names))
    out = read(dataset, tmp_path / "l")
    assert boxes(dataset, out) == {"a.jpg": [("void", 1, 5, 9, 9)], "c.jpg": [("void", 1, 2, 3, 4)], "d.jpg": []}
    (conflict,) = out.unread
    assert conflict.startswith("b.jpg: it is listed 2 times") and "train/_ann" in conflict and "valid/_ann" in conflict
