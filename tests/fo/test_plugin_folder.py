"""Installing the plugin: ours is replaced, anything else is named and stays."""

import hashlib
import json
import shutil
from pathlib import Path

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.cli import main

NAME = "@gsal/active-learning"


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def no_links(monkeypatch):
    """A file system without links."""

    def refuse(*args, **kwargs):
        raise OSError("links are not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)


def test_the_plugin_is_linked_once(tmp_path):
    place = gfo.plugin.install(tmp_path)
    assert place == tmp_path / "gsal" and place.is_symlink() and (place / "fiftyone.yml").is_file()
    assert gfo.plugin.install(tmp_path) == place


DEFINITIONS = {
    "a longer name": 'name: "@gsal/active-learning-plus"',
    "another author's": 'name: "@someone/gsal-active-learning-tools"',
    "ours in a comment": "name: '@me/mine'  # replaces @gsal/active-learning",
    "ours in the description": "name: mine\ndescription: works with @gsal/active-learning",
    "no mapping": "- @gsal/active-learning",
    "broken": "name: [@gsal/active-learning",
    "no text": b"\xff\xfe@gsal/active-learning",
    "none": None,
}


@pytest.mark.parametrize("kind", DEFINITIONS)
@pytest.mark.parametrize("linked", [False, True])
def test_a_plugin_of_another_name_stays(tmp_path, kind, linked):
    theirs = tmp_path / ("elsewhere" if linked else "plugins/gsal")
    theirs.mkdir(parents=True)
    (theirs / "work.py").write_text("mine")
    if (text := DEFINITIONS[kind]) is not None:
        (theirs / "fiftyone.yml").write_bytes(text if isinstance(text, bytes) else text.encode())
    if linked:
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "gsal").symlink_to(theirs)
    before = content(theirs)
    with pytest.raises(ValueError, match="move it away and install again"):
        gfo.plugin.install(tmp_path / "plugins")
    assert content(theirs) == before and (tmp_path / "plugins" / "gsal").is_symlink() == linked


def test_a_link_to_another_checkout_is_set_anew_and_the_checkout_stays(tmp_path):
    checkout = tmp_path / "checkout" / "plugins" / "gsal"
    shutil.copytree(gfo.plugin.source(), checkout)
    (checkout / "operators.py").write_text("# work in progress")
    before = content(checkout)
    (tmp_path / "gsal").symlink_to(checkout)
    assert gfo.plugin.install(tmp_path).samefile(gfo.plugin.source()) and content(checkout) == before


def test_a_link_whose_target_has_gone_is_ours_only_by_where_it_led(tmp_path):
    (tmp_path / "gsal").symlink_to(tmp_path / "old" / "gsal_fo" / "_plugin")
    assert gfo.plugin.install(tmp_path).samefile(gfo.plugin.source())
    (tmp_path / "gsal").unlink()
    (tmp_path / "gsal").symlink_to("/mnt/share/my-plugin")
    with pytest.raises(ValueError, match="is a link to /mnt/share/my-plugin"):
        gfo.plugin.install(tmp_path)
    assert (tmp_path / "gsal").readlink() == Path("/mnt/share/my-plugin")


def test_the_checkouts_own_folder_as_plugin_folder_is_left_as_it_is(tmp_path):
    """FIFTYONE_PLUGINS_DIR=checkout/plugins: what would be replaced is the source itself."""
    before = content(gfo.plugin.source())
    assert gfo.plugin.install(gfo.plugin.source().parent) == gfo.plugin.source()
    (tmp_path / "link").symlink_to(gfo.plugin.source().parent)
    assert gfo.plugin.install(tmp_path / "link").samefile(gfo.plugin.source())
    assert content(gfo.plugin.source()) == before


@pytest.mark.usefixtures("no_links")
def test_a_copy_is_replaced_while_nobody_has_edited_it(tmp_path):
    place = gfo.plugin.install(tmp_path)
    assert not place.is_symlink()
    (place / "__pycache__").mkdir()
    (place / "__pycache__" / "operators.cpython-311.pyc").write_bytes(b"")
    assert gfo.plugin.install(tmp_path) == place and not (place / "__pycache__").exists()
    noted = json.loads((place / ".copied.json").read_text())
    old = (place / "shared.py").read_text() + "# an older version\n"
    (place / "shared.py").write_text(old)
    with pytest.raises(ValueError, match=r"files of somebody's, such as shared\.py"):
        gfo.plugin.install(tmp_path)
    noted["shared.py"] = hashlib.sha256(old.encode()).hexdigest()  # as the older version would have noted it
    (place / ".copied.json").write_text(json.dumps(noted))
    assert gfo.plugin.install(tmp_path) == place and (place / "shared.py").read_text() != old
    (place / "notes.md").write_text("mine")
    with pytest.raises(ValueError, match=r"such as notes\.md"):
        gfo.plugin.install(tmp_path)
    assert (place / "notes.md").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["gsal"]


def test_the_plugin_is_not_installed_beside_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    downloaded = tmp_path / "@gsal" / "active-learning"
    shutil.copytree(gfo.plugin.source(), downloaded)
    with pytest.raises(ValueError, match=r"has the plugin already, in .*; .fiftyone plugins delete @gsal"):
        gfo.plugin.install()
    assert downloaded.is_dir() and not (tmp_path / "gsal").exists()
    shutil.rmtree(tmp_path / "@gsal")
    (tmp_path / "gsal-fo").symlink_to(gfo.plugin.source().parents[1])
    assert gfo.plugin.install().samefile(gfo.plugin.source()) and not (tmp_path / "gsal").exists()


def test_the_command_says_what_is_in_the_way(tmp_path, capsys):
    (tmp_path / "gsal").write_text("a file")
    assert main(["plugin", "install", "--plugins-dir", str(tmp_path)]) == 1
    assert "is another plugin or file; move it away" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["plugin", "install", "--plugins-dir", str(tmp_path / "file" / "plugins")]) == 1
    assert "cannot install the plugin into" in capsys.readouterr().err
