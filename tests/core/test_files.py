"""Pages and pictures go over nothing that a person has put or edited where they are written."""

from pathlib import Path

import pytest
from PIL import Image

from gsal_fo.pages import files

PICTURE = Image.new("RGB", (4, 3), "red")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


def test_a_page_is_what_was_given_and_can_be_written_again(page: Path):
    files.write_new(page, "<p>one</p>\n")
    assert page.read_text().startswith("<p>one</p>\n<!-- ")
    files.write_new(page, (part for part in ("<p>", "two", "</p>\n")))
    assert page.read_text().startswith("<p>two</p>\n<!-- ")
    assert [p.name for p in page.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("held", [b"my notes", b"", b"\x89PNG\r\n\x1a\n cut short", b"\xff\xfe\x00"])
def test_another_file_stays_until_force(page: Path, held: bytes):
    page.write_bytes(held)
    for write in (lambda **k: files.write_new(page, "x", **k), lambda **k: files.save_new(PICTURE, page, **k)):
        with pytest.raises(ValueError, match=r"page\.html exists.*--force"):
            write()
    assert page.read_bytes() == held
    files.write_new(page, "x", force=True)
    assert page.read_text().startswith("x<!-- ")


@pytest.mark.parametrize("edit", [lambda t: t.replace("one", "two"), lambda t: t + "my note", lambda t: "note" + t])
def test_an_edited_page_stays(page: Path, edit):
    files.write_new(page, "<p>one</p>\n")
    page.write_text(edit(page.read_text()))
    with pytest.raises(ValueError, match="your edits"):
        files.write_new(page, "<p>three</p>\n")


def test_a_picture_is_known_by_its_pixels(tmp_path: Path):
    path = tmp_path / "sheet.png"
    files.save_new(PICTURE, path)
    with Image.open(path) as found:
        assert found.tobytes() == PICTURE.tobytes()
    files.save_new(Image.new("RGB", (4, 3), "blue"), path)
    with Image.open(path) as found:
        found.putpixel((0, 0), (1, 2, 3))
        found.save(path)
    with pytest.raises(ValueError, match="your edits"):
        files.save_new(PICTURE, path)
    files.save_new(PICTURE, path, force=True)


def test_a_page_that_fails_half_way_leaves_what_was_there(page: Path):
    files.write_new(page, "whole\n")
    before = page.read_bytes()

    def parts():
        yield "half"
        raise KeyError("a lost image")

    with pytest.raises(KeyError):
        files.write_new(page, parts())
    assert page.read_bytes() == before and [p.name for p in page.parent.iterdir()] == ["page.html"]


def test_a_folder_or_a_missing_folder_is_a_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match="is no file; choose another name"):
        files.check_new(tmp_path, force=True)
    with pytest.raises(ValueError, match="does not exist; create it"):
        files.check_new(tmp_path / "no" / "page.html", force=True)
