"""``fo.fit`` and ``gsal fit`` on a real dataset with the real worker."""

import json

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from gsal_fo import cli
from gsal_fo import fo as gfo
from gsal_fo.fo.training import _absolute_model

pytestmark = pytest.mark.usefixtures("warm")
SMALL = {"encoder": "mobilenet_v2:none", "size": "tiny", "input_size": 64, "stride": 8, "components": 4, "steps": 2}


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    dataset = fo.Dataset()
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    dataset.add_samples([fo.Sample(filepath=str(p)) for p in sorted(tmp_path.glob("*.png"))])
    yield dataset
    dataset.delete()


def test_fit_writes_a_model_once_and_nothing_into_the_dataset(tmp_path, dataset, capsys):
    before, events = dataset.get_field_schema(), []
    out = gfo.fit(dataset, out=tmp_path / "model", on_event=events.append, **SMALL)
    facts = json.loads((out / "gsal.json").read_text())
    assert (facts["defaults"]["alpha"], facts["defaults"]["beta"]) == (1, 0)
    assert facts["fit"]["images"] == 9 and facts["encoder"] == "mobilenet_v2:none"
    assert {"unet", "scheduler", "features.safetensors", "gsal.json", "curve.csv", "curve.png", "samples.png"} == {
        p.name for p in out.iterdir()
    }
    assert [e["reason"] for e in events if e["event"] == "failed"] == ["the file is not an image that Pillow can read"]
    assert dataset.get_field_schema() == before and dataset.count_sample_tags() == {}
    # The same command finds its model; another one is told to go elsewhere.
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()]
    assert cli.main(["fit", dataset.name, "--out", str(out), "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": str(out)}
    assert cli.main(["fit", dataset.name, "--out", str(out), *flags, "--seed=1"]) == 1
    assert "with another configuration; use another out or run_dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"stages": ["layer9"]}, "has no stage 'layer9'; it has features.3 (stride 4), features.6 (stride 8)"),
        (
            {"space": "vae", "vae": "/nowhere/vae"},
            "no autoencoder '/nowhere/vae': give an existing folder, or a hub id",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_one_sentence(tmp_path, dataset, wrong, says):
    with pytest.raises(ValueError) as caught:
        gfo.fit(dataset, out=tmp_path / "model", **{**SMALL, **wrong})
    assert says in str(caught.value) and not (tmp_path / "model").exists()


def test_settings_and_folders_are_checked_before_a_worker_starts(tmp_path, dataset):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds files that this call did not make"):
        gfo.fit(dataset, out=tmp_path / "mine", **SMALL)
    with pytest.raises(ValueError, match="has no setting"):
        gfo.fit(dataset, out=tmp_path / "model", sise="tiny")


def test_a_model_s_file_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"")
    (tmp_path / "none").mkdir()
    assert _absolute_model("mobilenet_v2:w.safetensors") == f"mobilenet_v2:{tmp_path.resolve() / 'w.safetensors'}"
    assert _absolute_model("w.safetensors") == str(tmp_path.resolve() / "w.safetensors")
    for name in ("embedded", "mobilenet_v2:none", "mobilenet_v2:default", "owner/name", None):
        assert _absolute_model(name) == name
