"""The models that ship with the package: small enough, loaded like any other, and as good as their README says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gsal_fo
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.diffusion import reduce_map
from gsal_fo.synthetic.thin_film import CLASSES, render
from lightning_modules import fit_clip, fit_diffusion
from lightning_modules.data import resized
from lightning_modules.nets import load_clip, load_denoiser, load_encoder

EMBEDDED = Path(gsal_fo.__file__).parent / "embedded"
SEED = 40_000_000  # slices that no training and no published measurement used


@pytest.fixture(scope="module")
def slices():
    return fit_clip.make_slices(24, SEED)


def test_together_they_are_below_25_megabytes_and_hold_no_pickle():
    files = [p for p in EMBEDDED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 25e6
    assert {p.suffix for p in files} <= {".json", ".safetensors", ".md"}


def test_the_embedded_clip_tells_defects_and_attributes_apart_and_abstains_on_empty_film(slices):
    got = fit_clip.measure(load_clip(), fit_clip.packaged_graph(), slices)
    # Floors well below the README's numbers: about 80 crops here, so that chance moves them by a few percent.
    assert got["exact_fine_accuracy"] > 0.9 and got["jittered_fine_accuracy"] > 0.85
    assert got["attribute_pairs_right"] > 0.9
    assert got["empty_abstain"] > 0.85 and got["empty_taken_for_rare"] < 0.06


def test_words_of_a_user_s_own_graph_about_the_same_things_work_too(slices):
    graph = ConceptGraph.from_dict(
        {
            "templates": ["a CT slice with a {}"],
            "concepts": {
                "dark_spot": {"coarse": "a", "prompts": ["round dark cavity"]},
                "bright_spot": {"coarse": "a", "prompts": ["bright foreign particle"]},
            },
        }
    )
    clip = load_clip()
    text = clip.encode_text([graph.templates[0].format(graph.prompts(f)[0]) for f in graph.fine])  # bright, dark
    hits = []
    for item in slices:
        for box, label in zip(item.boxes, item.labels, strict=True):
            if label in ("void", "inclusion"):
                crop = fit_clip._cut(item, box, None).expand(-1, 3, -1, -1) / 255
                bright, dark = (clip.embed(crop) @ text.T)[0]
                hits.append(bool(bright > dark) == (label == "inclusion"))
    assert len(hits) > 10 and np.mean(hits) > 0.9


def test_the_embedded_denoiser_is_fitted_on_the_embedded_encoder_and_finds_defects(slices):
    model = load_denoiser()
    about = json.loads((EMBEDDED / "diffusion" / "gsal.json").read_text())
    assert about["encoder_digest"] == load_encoder().digest and model.space == "features"
    clean = [render(np.random.default_rng([SEED, 1, i])) for i in range(16)]
    bad = [render(np.random.default_rng([SEED, 2, i]), want=[CLASSES[i % 6]] * 2) for i in range(18)]
    images = [resized(np.repeat(s.image[..., None], 3, 2), model.input_size) for s in [*clean, *bad]]
    errors, variances = fit_diffusion.error_maps(model, images, model.defaults["t"])
    assert torch.isfinite(errors).all() and torch.isfinite(variances).all()
    values = reduce_map(errors, model.defaults["reduce"]).numpy()
    assert fit_diffusion.auroc(values[16:], values[:16]) > 0.6
