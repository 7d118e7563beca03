"""An export over an earlier one: a person's changes and samples' images stay; a kill leaves one of the two, or neither
for good."""

import builtins
import io
import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo import cli
from gsal_fo.fo.exchange import exporting, manifests, replacing
from gsal_fo.fo.exchange.formats import FORMATS, target
from tests.fo_pool import box, picture

LABEL = {
    "coco": "annotations.json",
    "cvat": "annotations.xml",
    "fiftyone": "samples.json",
    "labelstudio": "tasks.json",
    "voc": "Annotations/*.xml",
    "yolo": "labels/*.txt",
}


def tree(folder: Path) -> dict[str, str]:
    """Name -> content of every file below a folder, of a link where it points to."""
    return {str(p.relative_to(folder)): target.present(p) for p in sorted(folder.rglob("*")) if target.present(p)}


@pytest.fixture
def batch(scored):
    return gfo.select(scored, 3)


@pytest.mark.parametrize("format", FORMATS)
def test_a_label_file_that_was_edited_is_never_replaced_unasked(scored, batch, tmp_path, format, capsys):
    out = gfo.export(batch, tmp_path / "out", format)
    edited = next(iter(sorted(out.glob(LABEL[format]))))
    edited.write_text(edited.read_text() + "\n")
    before = tree(out)
    with pytest.raises(ValueError, match=rf"{edited.name} would be replaced, .* --force"):
        gfo.export(batch.limit(2), out, format)
    assert tree(out) == before
    arguments = ["export", scored.name, "--out", str(out), "--format", format, "--json"]
    assert cli.main(arguments) == 1 and "would be replaced" in capsys.readouterr().err
    assert cli.main([*arguments, "--force"]) == 0
    assert tree(out) != before and set(tree(out)) == set(before)


def test_whatever_lies_in_the_way_is_asked_about_and_the_rest_stays(batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out", "yolo")
    (out / "annotations.json").write_text("a labeler's own export")
    (out / "notes").mkdir()
    (out / "notes" / "today.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"annotations.json would be replaced"):
        gfo.export(batch, out, "coco")
    gfo.export(batch, out, "coco", force=True)
    assert (out / "notes" / "today.txt").read_text() == "keep"
    assert not (out / "labels").exists() and not (out / "classes.txt").exists(), "of the earlier export"
    (out / "data.yaml").mkdir()
    with pytest.raises(ValueError, match=r"data.yaml is in the way of the export"):
        gfo.export(batch, out, "yolo", force=True)
    assert json.loads((out / "manifest.json").read_text())["format"] == "coco"


def test_an_export_of_before_digests_were_kept_is_replaced_only_when_asked(batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["written"]
    (out / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))
    gfo.export(batch, out)  # every file would be what it is already: nothing can be lost
    (out / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))
    with pytest.raises(ValueError, match="--force"):
        gfo.export(batch.limit(1), out)
    gfo.export(batch.limit(1), out, force=True)
    assert len(list((out / "images").iterdir())) == 1


@pytest.mark.parametrize("media", ["copy", "link"])
@pytest.mark.parametrize("format", ["coco", "fiftyone"])
def test_a_dataset_whose_images_lie_in_an_earlier_export_keeps_them(batch, graph, tiny, tmp_path, format, media):
    """A second team makes its dataset from the hand-off's folder, and exports into it."""
    out = gfo.export(batch, tmp_path / "out", format, prelabels=False)
    files = sorted((out / FORMATS[format].media).iterdir())
    theirs = fo.Dataset(f"second team {format} {media}", overwrite=True)
    guess = fo.Detections(detections=[box("void", confidence=0.9)])
    theirs.add_samples([fo.Sample(str(p), boxes=guess.copy()) for p in files])
    images = {p: p.read_bytes() for p in files}
    try:
        gfo.score(theirs, concepts=graph)
        gfo.export(theirs, out, format, media=media, force=True)  # their own images stay where they are
        assert {p: p.read_bytes() for p in files} == images and not any(p.is_symlink() for p in files)
        for one in (gfo.select(theirs, 1), batch.limit(1)):
            with pytest.raises(ValueError, match='is an image of dataset "second team'):
                gfo.export(one, out, "voc", force=True)
        assert {p: p.read_bytes() for p in files} == images
    finally:
        theirs.delete()


@pytest.mark.parametrize("how", ["symlink to it", "hard link", "its folder by another name"])
def test_an_image_is_known_by_whatever_path_a_sample_has_it(dataset, graph, tiny, tmp_path, how):
    gfo.score(dataset, concepts=graph)
    out = gfo.export(gfo.select(dataset, 3), tmp_path / "out")
    file = sorted((out / "images").iterdir())[0]
    other = tmp_path / "elsewhere" / file.name
    if how == "its folder by another name":
        other.parent.symlink_to(out / "images")
    else:
        other.parent.mkdir()
        other.symlink_to(file) if how == "symlink to it" else os.link(file, other)
    dataset.add_sample(fo.Sample(str(other)))
    with pytest.raises(ValueError, match=f"{file.name} is an image of dataset"):
        gfo.export(dataset.match_tags("gsal_round_001").limit(1), out, "voc", force=True)
    assert file.is_file()


def test_what_is_there_already_is_not_copied_again(batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out")
    when = {p: p.stat().st_ino for p in (out / "images").iterdir()}
    gfo.export(batch, out)
    assert {p: p.stat().st_ino for p in (out / "images").iterdir()} == when
    gfo.export(batch, out, media="link")
    assert all(p.is_symlink() for p in (out / "images").iterdir())
    gfo.export(batch, out)
    assert not any(p.is_symlink() for p in (out / "images").iterdir())


def put(folder: Path, images: list[Path], texts: dict[str, str]) -> None:
    """An export without a dataset: images and label files into the folder, as `export` does it."""
    old = replacing.written(folder, replacing.earlier(folder))
    with target.Target(folder) as place:
        for path in images:
            place.take(path, target.file_digest(path), f"images/{path.name}", link=False)
        for name, text in texts.items():
            place.write(name, text)
        head = {"kind": manifests.KIND, "files": [manifests.NAME, *place.seal()]}
        replacing.check(folder, old, place.digests, force=False)
        place.publish(manifests.NAME, head, old)


def killed_at(step: int, work) -> bool:
    """Whether a process that does ``work`` was killed before its system call number ``step`` that writes."""
    child = os.fork()
    if child == 0:
        left, opened = itertools.count(1), builtins.open

        def counted(real):
            def call(*args, **more):
                reads = real is opened and "w" not in str(args[1:2])
                if not reads and next(left) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **more)

            return call

        try:
            for owner, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"), (shutil, "copyfile")):
                setattr(owner, name, counted(getattr(owner, name)))
            io.open = builtins.open = counted(builtins.open)
            work()
        finally:
            os._exit(0 if sys.exception() is None else 1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_step_leaves_one_of_the_two_whole_or_what_the_same_command_completes(tmp_path):
    """The second export adds, keeps, replaces and removes files and folders; a person's file lies among them."""
    images = [Path(picture(tmp_path / f"{n}.png", n)) for n in range(4)]
    before = {"annotations.json": "old", "scores.csv": "old", "Annotations/a.xml": "old"}
    after = {"labels/0.txt": "new", "labels/1.txt": "new", "scores.csv": "new"}
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, images[:3], before)
    put(second, images[1:], after)
    (first / "mine.txt").write_text("keep")
    wanted = {**tree(second), "mine.txt": tree(first)["mine.txt"]}
    seen = set()
    for start in (first, None):
        for step in itertools.count(1):
            out = tmp_path / f"{start and start.name}_{step}"
            if start:
                shutil.copytree(start, out)
            if not killed_at(step, lambda out=out: put(out, images[1:], after)):
                assert step > 20, "every write was a step"
                break
            found = {n: d for n, d in tree(out).items() if not n.startswith(target.STAGE)}
            if start and found == tree(start):
                seen.add("old")
            elif found and exporting.read_manifest(out / "manifest.json")["complete"]:
                assert {n: d for n, d in found.items() if n != "mine.txt"} == tree(second)
                seen.add("new")
            put(out, images[1:], after)
            assert tree(out) == (wanted if start else tree(second)) and not (out / target.STAGE).exists()
            shutil.rmtree(out)
    assert seen == {"old", "new"}


def test_two_exports_into_one_folder_do_not_mix(batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out")
    with target.Target(out), pytest.raises(ValueError, match="is being written by another export"):
        gfo.export(batch, out)
    gfo.export(batch, out)


def test_a_refused_export_leaves_nothing_behind(scored, batch, tmp_path, monkeypatch):
    def full(items, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.scores_csv, "write", full)
    with pytest.raises(ValueError, match=r"cannot write .*: No space left on device; free space"):
        gfo.export(batch, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists() and scored.values("gsal_sent") == [None] * 12


def test_an_image_that_goes_while_the_export_works_is_listed(batch, tmp_path, monkeypatch):
    gone = Path(batch.first().filepath)
    real = exporting.file_digest

    def read(path):
        if path == gone:
            gone.rename(gone.with_suffix(".away"))
        return real(path)

    monkeypatch.setattr(exporting, "file_digest", read)
    try:
        out = gfo.export(batch, tmp_path / "out")
    finally:
        gone.with_suffix(".away").rename(gone)
    manifest = exporting.read_manifest(out / "manifest.json")
    assert [m["reason"] for m in manifest["missing"]] == ["the file cannot be read (No such file or directory)"]
    assert len(manifest["images"]) == 2 == len(json.loads((out / "annotations.json").read_text())["images"])


def test_an_incomplete_export_is_no_source_of_labels(scored, batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    with pytest.raises(ValueError, match="of an export that was cut short; give the same gsal export again"):
        gfo.ingest(scored, out)


def test_one_unreadable_image_never_stops_an_export(dataset, graph, tiny, tmp_path):
    gfo.score(dataset, concepts=graph)
    bad = tmp_path / "images" / "bad.png"
    bad.write_bytes(Path(picture(tmp_path / "x.png", 1)).read_bytes()[:40])
    dataset.add_sample(fo.Sample(str(bad)))
    out = gfo.export(dataset, tmp_path / "out")
    manifest = exporting.read_manifest(out / "manifest.json")
    assert len(manifest["images"]) == 12 and [m["source"] for m in manifest["missing"]] == [str(bad)]
    assert manifest["missing"][0]["reason"]
