"""Configs: round trips, digests, and values that are refused with the setting's name."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsal_fo import config as c

KINDS = [c.GsalParams, c.DetectorConfig, c.DiffusionConfig, c.ConceptConfig, c.TrainConfig, c.ScoreConfig]
CHANGED = {
    c.GsalParams: c.GsalParams(lam=2.5, levels="CA", strategy="no_rarity", rarity="graded", seed=7),
    c.DetectorConfig: c.DetectorConfig(checkpoint="/some/folder", max_proposals=3),
    c.DiffusionConfig: c.DiffusionConfig(t=0.7, reduce="max", regions="maps", draws=8, noise="per_sample"),
    c.ConceptConfig: c.ConceptConfig(assign="prototypes", encoder="mobilenet_v2:none", floor=0.0),
    c.TrainConfig: c.TrainConfig(arch="r50_fpn", lr=0.02, size=600),
    c.ScoreConfig: c.ScoreConfig(graph="/g.yaml", diffusion=c.DiffusionConfig(t=0.1), detector=c.DetectorConfig()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_configs_come_back_from_yaml_and_from_plain_values(tmp_path: Path, kind):
    for value in (kind(), CHANGED[kind]):
        c.dump_yaml(value, tmp_path / "config.yaml")
        assert c.load_yaml(kind, tmp_path / "config.yaml") == value
        assert c.from_dict(kind, c.to_dict(value)) == value


@pytest.mark.parametrize("kind", KINDS)
def test_configs_are_frozen(kind):
    value = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(kind)[0].name, 1)


def test_the_defaults_are_the_methods():
    p = c.GsalParams()
    assert (p.alpha, p.beta, p.gamma, p.delta, p.eta, p.lam, p.p, p.quantile) == (0.5, 0.5, 0.5, 0.5, 0.5, 1, 3, 0.2)
    assert (p.rarity, p.levels, p.abstract, p.image_rarity, p.batch) == ("quantile", "FCA", "sum", "mean", "static")
    assert (c.DiffusionConfig().draws, c.DiffusionConfig().noise, c.DetectorConfig().max_proposals) == (4, "shared", 10)
    assert (c.ConceptConfig().assign, c.ConceptConfig().pad) == ("auto", 0.2)


@given(st.sampled_from(dataclasses.fields(c.DiffusionConfig)))
def test_every_setting_is_in_the_digest(field):
    other = {"model": "x", "t": 0.5, "draws": 6, "noise": "per_sample", "steps": 3, "reduce": "max", "regions": "maps",
             "crop_size": 128, "screen": 0.5, "seed": 4, "batch_size": 3, "vae": "x", "precision": "bf16",
             "channels_last": True, "attention_slicing": True, "compile": True}  # fmt: skip
    base, changed = c.DiffusionConfig(), c.DiffusionConfig(**{field.name: other[field.name]})
    assert c.digest(base) != c.digest(changed)
    assert c.digest(base) == c.digest(c.DiffusionConfig()) and len(c.digest(base)) == 16


def test_digests_of_parts_do_not_depend_on_key_order_and_do_on_their_place():
    assert c.digest({"a": 1, "b": 2}) == c.digest({"b": 2, "a": 1})
    assert c.digest("a", "b") != c.digest("b", "a") and c.digest("ab") != c.digest("a", "b")


@given(st.sets(st.sampled_from("FCA"), min_size=1).flatmap(lambda s: st.permutations(sorted(s))))
def test_levels_are_kept_in_one_order(letters):
    assert c.GsalParams(levels="".join(letters)).levels == "".join(v for v in "FCA" if v in letters)


NAN, INF = float("nan"), float("inf")
BAD = [
    *[
        (c.GsalParams, name, value)
        for name in ("alpha", "beta", "gamma", "delta", "lam")
        for value in (-1, "1", NAN, True)
    ],
    *[(c.GsalParams, "eta", value) for value in (-0.1, 1.1, NAN)],
    *[(c.GsalParams, "quantile", value) for value in (-0.1, 1.1, None)],
    *[(c.GsalParams, "p", value) for value in (0.5, 0, NAN)],
    *[(c.GsalParams, name, "x") for name in ("rarity", "abstract", "image_rarity", "unmatched", "batch")],
    *[(c.GsalParams, "strategy", value) for value in ("", 3)],
    (c.GsalParams, "settings", "x"),
    *[(c.GsalParams, "levels", value) for value in ("", "X", "FX", 3, None)],
    *[(c.GsalParams, "seed", value) for value in (-1, 0.5, True)],
    *[(c.GsalParams, "normalize", "x"), (c.GsalParams, "shrink", -1)],
    *[(c.DiffusionConfig, "draws", value) for value in (0, 1, 3, 4.0)],
    *[(c.DiffusionConfig, name, value) for name, value in [("t", 1.5), ("noise", "x"), ("steps", 0), ("reduce", "x")]],
    *[(c.DiffusionConfig, name, value) for name, value in [("regions", "x"), ("crop_size", 4), ("batch_size", 0)]],
    *[(c.DetectorConfig, name, value) for name, value in [("proposals", "x"), ("max_proposals", 0), ("nms_iou", 2)]],
    *[
        (c.ConceptConfig, name, value)
        for name, value in [("assign", "x"), ("pad", -1), ("floor", 2), ("batch_size", 0)]
    ],
    *[(c.TrainConfig, name, value) for name, value in [("arch", "x"), ("steps", 0), ("lr", -1), ("size", 8)]],
    (c.ScoreConfig, "workers", -1),
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_bad_values_are_refused_in_one_sentence_with_the_settings_name(kind, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be") as caught:
        kind(**{name: value})
    assert "got" in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_settings_and_broken_files_are_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match=r"GsalParams has no setting lambda; it has .*lam"):
        c.from_dict(c.GsalParams, {"lambda": 1})
    with pytest.raises(ValueError, match="DiffusionConfig has no setting"):
        c.from_dict(c.ScoreConfig, {"diffusion": {"K": 4}})
    path = tmp_path / "params.yaml"
    for text in ("[1, 2]", "a: [", "lam: -1", "unknown: 1", "!!python/object/apply:os.getcwd []"):
        path.write_text(text)
        with pytest.raises(ValueError, match=str(path)):
            c.load_yaml(c.GsalParams, path)
