"""How often a concept assignment is right: ground-truth crops of the real sets and of the synthetic pool.

``python tests/bench/assignment.py neu_det deeppcb bccd coco256 synthetic``

For each set: CLIP zero-shot (the embedded model and the packaged graph's prompts), and prototypes from a random 5 % and
10 % of the images (mean of ``--draws``), over the embedded CLIP's image tower and over the ImageNet MobileNetV2. Crops
of the labeled images are left out of what is judged. ``rare`` is the mean recall of the classes with the fewest boxes
(a third of the classes, at least one); ``unmatched`` the share of crops that prototypes leave without a concept, which
count as wrong; ``always`` is the accuracy of naming the most frequent class.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
LABELS = {"neu_det": "labels_lt.json", "deeppcb": "labels.json", "bccd": "labels.json", "coco256": "labels.json"}
GRAPHS = {"neu_det": "neu_det", "deeppcb": "deeppcb", "bccd": "bccd", "coco256": "coco", "synthetic": "thin_film"}
Item = tuple[np.ndarray, np.ndarray, list[str]]  # pixels (H, W, 3), boxes (n, 4) xywh_rel, n labels


def real(name: str, limit: int, seed: int) -> list[Item]:
    """A random part of a set, images without boxes left out."""
    from gsal_fo.boxes import xywh_px_to_xywh_rel
    from lightning_modules.data import read_image

    folder = SHARED / "datasets" / name
    coco = json.loads((folder / LABELS[name]).read_text(encoding="utf-8"))
    classes = {c["id"]: c["name"] for c in coco["categories"]}
    boxes: dict[int, list[tuple[list[float], str]]] = {}
    for a in coco["annotations"]:
        boxes.setdefault(a["image_id"], []).append((a["bbox"], classes[a["category_id"]]))
    entries = [e for e in coco["images"] if e["id"] in boxes]
    rows = np.random.default_rng(seed).permutation(len(entries))[:limit]
    out = []
    for entry in (entries[r] for r in sorted(rows)):
        pixels, _ = read_image(folder / "images" / entry["file_name"])
        drawn = np.array([b for b, _ in boxes[entry["id"]]], dtype=np.float64)
        rel = np.concatenate([xywh_px_to_xywh_rel(b, entry["width"], entry["height"]) for b in drawn])
        out.append((pixels, rel, [label for _, label in boxes[entry["id"]]]))
    return out


def synthetic(limit: int, seed: int) -> list[Item]:
    """Slices of the thin-film generator, those without a defect left out."""
    from gsal_fo.boxes import xywh_px_to_xywh_rel
    from gsal_fo.synthetic import plan, render_planned

    out = []
    for index, wanted in enumerate(plan(limit, seed)):
        slice_ = render_planned(seed, index, wanted)
        if slice_.labels:
            height, width = slice_.image.shape[:2]
            pixels = slice_.image if slice_.image.ndim == 3 else np.repeat(slice_.image[..., None], 3, 2)
            out.append((pixels, xywh_px_to_xywh_rel(slice_.boxes, width, height), list(slice_.labels)))
    return out


def embed(items: list[Item], encoder: Any) -> np.ndarray:
    """Crops of all items (P, D), cut and padded as the worker does it."""
    import torch

    from lightning_modules.data import crops, to_float

    out = []
    with torch.inference_mode():
        for pixels, boxes, _ in items:
            cut = crops(pixels, boxes, pad=0.2, size=encoder.input_size)
            out.append(encoder.embed(to_float(cut)).float().numpy())
    return np.concatenate(out)


def judge(fine: np.ndarray, names: list[str], truth: list[str], rare: list[str]) -> dict[str, float]:
    """Accuracy, mean recall of the rare classes that occur, share unmatched."""
    got = np.array([names[f] if f >= 0 else "" for f in fine])
    right = got == np.array(truth)
    recalls = [right[np.array(truth) == c].mean() for c in rare if c in truth]
    return {
        "accuracy": float(right.mean()),
        "rare": float(np.mean(recalls)) if recalls else float("nan"),
        "unmatched": float((fine == -2).mean()),
    }


def prototypes(
    vectors: np.ndarray, items: list[Item], names: list[str], rare: list[str], share: float, draws: int
) -> dict[str, float]:
    """Mean over draws of labeled images."""
    from gsal_fo.similarity import Prototypes

    owner = np.repeat(np.arange(len(items)), [len(labels) for _, _, labels in items])
    truth = np.array([label for _, _, labels in items for label in labels])
    runs = []
    for draw in range(draws):
        chosen = np.random.default_rng(draw).choice(len(items), max(1, round(share * len(items))), replace=False)
        known = np.isin(owner, chosen)
        model = Prototypes.fit(vectors[known], truth[known].tolist(), names)
        runs.append(judge(model.assign(vectors[~known]).fine, names, truth[~known].tolist(), rare))
    return {k: float(np.nanmean([r[k] for r in runs])) for k in runs[0]}


def measure(name: str, limit: int, draws: int, seed: int) -> dict[str, Any]:
    import torch

    from gsal_fo.concepts import ConceptGraph
    from gsal_fo.similarity import assign_clip, text_embeddings
    from lightning_modules.nets import load_clip, load_encoder

    items = synthetic(limit, seed) if name == "synthetic" else real(name, limit, seed)
    truth = [label for _, _, labels in items for label in labels]
    counts = Counter(truth)
    names = sorted(counts)
    rare = sorted(counts, key=lambda c: (counts[c], c))[: max(1, len(counts) // 3)]
    out: dict[str, Any] = {"set": name, "images": len(items), "crops": len(truth), "classes": len(names)}
    out |= {"rare_classes": rare if len(rare) < 8 else len(rare), "always": max(counts.values()) / len(truth)}
    clip = load_clip("embedded")
    seen = embed(items, clip)
    path = ROOT / "gsal_fo" / "graphs" / f"{GRAPHS[name]}.yaml"
    if path.is_file():
        graph = ConceptGraph.load(path)
        with torch.inference_mode():
            text = text_embeddings(graph, clip.encode_text)
        out["clip"] = judge(assign_clip(seen, text).fine, graph.fine, truth, rare)
    encoders = {"embedded CLIP": seen}
    weights = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.safetensors"
    if weights.is_file():
        encoders["MobileNetV2"] = embed(items, load_encoder(f"mobilenet_v2:{weights}"))
    for encoder, vectors in encoders.items():
        for share in (0.05, 0.1):
            out[f"prototypes, {encoder}, {share:.0%}"] = prototypes(vectors, items, names, rare, share, draws)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(GRAPHS), help=f"of {', '.join(GRAPHS)}")
    parser.add_argument("--limit", type=int, default=400, help="images per set (default %(default)s)")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.sets:
        print(json.dumps(measure(name, args.limit, args.draws, args.seed), indent=1), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
