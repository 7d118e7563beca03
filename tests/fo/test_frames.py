"""In which frame boxes are: of the upright image, of the raw pixels of a photo that EXIF turns, of a resized copy."""

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.label_files import answers, boxes, coco, pool, read, voc, voc_object, write

ORIENTATION = 0x0112
RAW = (128, 96)  # of the photos, before they are turned


def photo(path, orientation, *, raw=RAW, mark=(100, 60, 10, 20)):
    """A black photo with a white box ``mark`` in its raw pixels; the box in its upright pixels, as Pillow turns it."""
    pixels = np.zeros((raw[1], raw[0]), dtype=np.uint8)
    x, y, w, h = mark
    pixels[y : y + h, x : x + w] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)
    image.getexif()[ORIENTATION] = orientation
    with Image.open(path) as written:
        upright = np.asarray(ImageOps.exif_transpose(written)) > 128
    rows, columns = np.flatnonzero(upright.any(1)), np.flatnonzero(upright.any(0))
    left, top = int(columns[0]), int(rows[0])
    size = (upright.shape[1], upright.shape[0])
    return (left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top), size


def photos(folder, *orientations, **more):
    """A dataset of photos 1.png, 2.png, ... with these orientations; their marks upright, and their upright sizes."""
    found = [photo(folder / f"{k}.png", o, **more) for k, o in enumerate(orientations, 1)]
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(str(folder / f"{k}.png")) for k in range(1, len(found) + 1)], progress=False)
    return dataset, [mark for mark, _ in found], [size for _, size in found]


def names(count):
    return [f"{k}.png" for k in range(1, count + 1)]


def by_image(*marks):
    return [{"image_id": k, "bbox": list(mark)} for k, mark in enumerate(marks, 1)]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_that_fit_only_the_raw_photo_are_turned_with_it(tmp_path, orientation):
    """x + w = 110 is beyond the upright width of 96: only the raw frame can be meant."""
    dataset, (upright,), (size,) = photos(tmp_path / "photos", orientation)
    note = {"bbox": [100, 60, 10, 20], "segmentation": [[100, 60, 110, 60, 110, 80]], "attributes": {"rotation": 0.0}}
    out = read(dataset, write(tmp_path / "c.json", coco([note], names(1), RAW)))
    assert boxes(dataset, out, size)["1.png"] == [("void", *(pytest.approx(v, abs=2e-3) for v in upright))]
    assert any("turned with it" in note for note in out.notes)
    # The outline lies inside of the turned box, and covers half of it.
    (found,) = answers(dataset, out)["1.png"]
    points, (x, y, w, h) = np.array(found["polygons"][0]), found.bounding_box
    assert (points >= [x - 1e-6, y - 1e-6]).all() and (points <= [x + w + 1e-6, y + h + 1e-6]).all()
    assert found.mask.shape == (upright[3], upright[2]) and found.mask.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_with_the_photo(tmp_path, orientation):
    """A mask of three corners of the mark; the first photo shows that the file is of raw pixels."""
    dataset, (_, upright), sizes = photos(tmp_path / "photos", 6, orientation)
    picture = np.zeros((RAW[1], RAW[0]), dtype=np.uint8)
    picture[60:80, 100:110] = 1
    picture[70:80, 105:110] = 0
    flat = picture.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    mask = {"image_id": 2, "segmentation": {"size": [96, 128], "counts": runs}}
    out = read(dataset, write(tmp_path / "c.json", coco([{"bbox": [100, 60, 10, 20]}, mask], names(2), RAW)))
    (found,) = answers(dataset, out)["2.png"]
    assert boxes(dataset, out, sizes[1])["2.png"] == [("void", *(pytest.approx(v, abs=2e-3) for v in upright))]
    image = Image.fromarray(picture[60:80, 100:110] * 255)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(found.mask, np.asarray(ImageOps.exif_transpose(image)) > 0)


def test_a_size_that_is_only_swapped_moves_no_box(tmp_path):
    """y + h = 120 is beyond the raw height of 96: the boxes are upright, and width and height are the raw photo's."""
    dataset, _, _ = photos(tmp_path / "photos", 6, 6)
    out = read(dataset, write(tmp_path / "c.json", coco(by_image((60, 100, 20, 20), (10, 20, 20, 20)), names(2), RAW)))
    wanted = {"1.png": [("void", 60, 100, 20, 20)], "2.png": [("void", 10, 20, 20, 20)]}
    assert boxes(dataset, out, (96, 128)) == wanted, "the second fits both, and follows the first"
    assert out.notes == [
        "2 images: the label file has width and height of the raw photo; its boxes fit the upright one"
    ]


def test_a_swapped_size_without_any_sign_is_named_with_both_sizes(tmp_path):
    dataset, _, _ = photos(tmp_path / "photos", 6, 8)
    out = read(dataset, write(tmp_path / "c.json", coco(by_image((10, 20, 20, 20), (30, 20, 20, 20)), names(2), RAW)))
    assert not out.answers and len(out.unread) == 2
    assert "128 x 96" in out.unread[0] and "96 x 128" in out.unread[0] and out.unread[0].startswith("1.png: ")


def test_images_that_contradict_each_other_decide_for_themselves_alone(tmp_path):
    dataset, (raw, _, _), _ = photos(tmp_path / "photos", 6, 6, 6)
    marks = ((100, 60, 10, 20), (60, 100, 20, 20), (10, 20, 20, 20))  # raw, upright, either
    out = read(dataset, write(tmp_path / "c.json", coco(by_image(*marks), names(3), RAW)))
    found = boxes(dataset, out, (96, 128))
    assert found == {"1.png": [("void", *raw)], "2.png": [("void", 60, 100, 20, 20)]} and len(out.unread) == 1


def test_each_file_decides_for_itself(tmp_path):
    dataset, _, _ = photos(tmp_path / "photos", 6, 6)
    write(tmp_path / "l" / "one.json", coco(by_image((60, 100, 20, 20)), ["1.png"], RAW))
    write(tmp_path / "l" / "two.json", coco(by_image((10, 20, 20, 20)), ["2.png"], RAW))
    assert set(answers(dataset, read(dataset, tmp_path / "l"))) == {"1.png"}


def test_files_of_one_image_each_decide_by_their_folder(tmp_path):
    """VOC: what one photo of a folder shows, the others follow."""
    dataset, (upright, _, _), _ = photos(tmp_path / "photos", 6, 6, 6)
    corners = {"x/1.xml": (100, 60, 110, 80), "x/2.xml": (10, 20, 30, 40), "y/3.xml": (10, 20, 30, 40)}
    for name, place in corners.items():
        write(tmp_path / "l" / name, voc(voc_object(corners=place), f"{name[2]}.png", RAW))
    out = read(dataset, tmp_path / "l")
    # The second, turned by a quarter: x' = 96 - (20 + 20), y' = 10.
    assert boxes(dataset, out, (96, 128)) == {"1.png": [("void", *upright)], "2.png": [("void", 56, 10, 20, 20)]}
    assert len(out.unread) == 1 and out.unread[0].startswith("3.png: ")


def test_boxes_beyond_the_stated_size_that_fit_the_image_are_not_scaled(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"], (128, 96))
    out = read(dataset, write(tmp_path / "c.json", coco([{"bbox": [60, 40, 60, 50]}], ["a.jpg"], (64, 48))))
    assert not out.answers and "its boxes reach beyond" in out.unread[0]


def test_upright_sizes_are_taken_as_they_are_even_beside_a_half_turned_photo(tmp_path):
    dataset, marks, sizes = photos(tmp_path / "photos", 6, 3)
    document = coco(by_image(*marks), names(2))
    for entry, size in zip(document["images"], sizes, strict=True):
        entry["width"], entry["height"] = size
    out = read(dataset, write(tmp_path / "c.json", document))
    assert not out.notes and [boxes(dataset, out, s)[n] for n, s in zip(names(2), sizes, strict=True)] == [
        [("void", *mark)] for mark in marks
    ]


def test_a_resized_copy_is_scaled_and_said(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"], (128, 96))
    out = read(dataset, write(tmp_path / "c.json", coco([{"bbox": [16, 12, 32, 24]}], ["a.jpg"], (64, 48))))
    assert boxes(dataset, out) == {"a.jpg": [("void", 32, 24, 64, 48)]}
    assert out.notes == ["1 image: the label file is of a resized copy; boxes were scaled with it"]


README = "This dataset was exported via roboflow.com\n\nThe following pre-processing was applied to each image:\n* {}\n"


def test_a_copy_of_another_shape_is_taken_only_where_it_is_known_to_be_stretched(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"], (128, 96))
    document = coco([{"bbox": [16, 16, 32, 32]}], ["a_jpg.rf.0123456789abcdef0123456789abcdef.jpg"], (64, 64))
    place = write(tmp_path / "rf" / "train" / "_annotations.coco.json", document).parents[1]
    out = read(dataset, place)
    assert not out.answers and "64 x 64" in out.unread[0] and "128 x 96" in out.unread[0]
    write(place / "README.roboflow.txt", README.format("Resize to 64x64 (Stretch)"))
    out = read(dataset, place)
    assert boxes(dataset, out) == {"a.jpg": [("void", 32, 24, 64, 48)]} and "stretched" in out.notes[0]
    write(place / "README.roboflow.txt", README.format("Resize to 64x64 (Fit (black edges))"))
    out = read(dataset, place)
    assert not out.answers and "Roboflow changed the images" in out.unread[0]


def test_shares_of_a_padded_copy_are_not_taken_either(tmp_path):
    """YOLO has no sizes, so that only Roboflow's README tells."""
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    place = tmp_path / "rf"
    write(place / "train" / "labels" / "a_jpg.rf.0123456789abcdef0123456789abcdef.txt", "0 0.5 0.5 0.5 0.5")
    write(place / "data.yaml", "names: [void]")
    assert set(answers(dataset, read(dataset, place))) == {"a.jpg"}
    for step in ("Resize to 640x640 (Fill (with center crop))", "Tile image into: 2 rows x 2 columns"):
        write(place / "README.roboflow.txt", README.format(step))
        assert not read(dataset, place).answers
    write(
        place / "README.roboflow.txt", README.format("Auto-Orient") + "The following augmentation was applied to create"
    )
    out = read(dataset, place)
    assert not out.answers and "augmented" in out.unread[0]


def test_an_image_that_cannot_be_opened_keeps_the_size_of_the_file(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg", "b.jpg"])
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    document = coco([{"bbox": [16, 12, 32, 24]}, {"image_id": 2, "bbox": [16, 12, 32, 24]}], ["a.jpg", "b.jpg"])
    out = read(dataset, write(tmp_path / "c.json", document))
    assert boxes(dataset, out) == {name: [("void", 16, 12, 32, 24)] for name in ("a.jpg", "b.jpg")}
    for entry in document["images"]:
        del entry["width"], entry["height"]
    out = read(dataset, write(tmp_path / "c.json", document))
    assert set(answers(dataset, out)) == {"b.jpg"} and "has no width and height" in out.unread[0]


@pytest.mark.parametrize("size", [(None, None), (0, 0), ("0", "0")])
def test_a_size_that_is_missing_or_zero_is_asked_of_the_image(tmp_path, size):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    document = coco([{"bbox": [16, 12, 32, 24]}], ["a.jpg"])
    document["images"][0] |= {"width": size[0], "height": size[1]}
    assert boxes(dataset, read(dataset, write(tmp_path / "c.json", document)))["a.jpg"] == [("void", 16, 12, 32, 24)]


@pytest.mark.parametrize("odd", ["1e308", 10**30, "²", "128,5", -128, True, float("nan"), [1], "wide"])
def test_a_size_that_is_none_leaves_its_image_unlabeled(tmp_path, odd):
    dataset = pool(tmp_path / "photos", ["a.jpg", "b.jpg"])
    document = coco([{"bbox": [16, 12, 32, 24]}, {"image_id": 2, "bbox": [16, 12, 32, 24]}])
    document["images"][0]["width"] = odd
    out = read(dataset, write(tmp_path / "c.json", document))
    assert set(answers(dataset, out)) == {"b.jpg"} and out.unread[0].startswith("a.jpg: ")


def test_boxes_over_the_edge_are_cut_and_counted(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    out = read(
        dataset, write(tmp_path / "c.json", coco([{"bbox": [-10, -10, 30, 30]}, {"bbox": [1, 1, 5, 5]}], ["a.jpg"]))
    )
    assert boxes(dataset, out)["a.jpg"] == [("void", 0, 0, 20, 20), ("void", 1, 1, 5, 5)]
    assert out.notes == ["boxes that reached over the image's edge, and were cut there: 1"]
