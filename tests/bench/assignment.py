"""How often a concept assignment is right: ground-truth crops of the real sets and of the synthetic pool.

``python tests/bench/assignment.py neu_det deeppcb bccd coco256 synthetic``

For each set: CLIP zero-shot (the embedded model and the packaged graph's prompts), and prototypes from a random 5 % and
10 % of the images (mean of ``--draws``), over the embedded CLIP's image tower and over the ImageNet MobileNetV2;
``auto`` is how often ``assign="auto"`` takes CLIP over these prototypes, and what it gets right. With ``--detector`` a
detector is trained on the first draw's 10 %, and its posterior at the ground-truth boxes assigns. Crops
of the labeled images are left out of what is judged. ``rare`` is the mean recall of the classes with the fewest boxes
(a third of the classes, at least one); ``unmatched`` the share of crops that prototypes leave without a concept, which
count as wrong; ``always`` is the accuracy of naming the most frequent class.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
LABELS = {"neu_det": "labels_lt.json", "deeppcb": "labels.json", "bccd": "labels.json", "coco256": "labels.json"}
GRAPHS = {"neu_det": "neu_det", "deeppcb": "deeppcb", "bccd": "bccd", "coco256": "coco", "synthetic": "thin_film"}
Item = tuple[np.ndarray, np.ndarray, list[str]]  # pixels (H, W, 3), boxes (n, 4) xywh_rel, n labels


def real(name: str, limit: int, seed: int) -> list[Item]:
    """A random part of a set, images without boxes left out."""
    from gsal_fo.boxes import xywh_px_to_xywh_rel
    from gsal_fo.images import read_image

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
    from gsal_fo.synthetic.thin_film import plan, render_planned

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


def chosen(draw: int, count: int, share: float) -> np.ndarray:
    """The labeled images of a draw."""
    return np.random.default_rng(draw).choice(count, max(1, round(share * count)), replace=False)


def prototypes(
    vectors: np.ndarray,
    items: list[Item],
    names: list[str],
    rare: list[str],
    share: float,
    draws: int,
    clip: tuple[Any, np.ndarray, np.ndarray, Any],
) -> dict[str, Any]:
    """Mean over draws of labeled images; ``clip``: graph, crops by CLIP, texts and background, for ``auto``."""
    from gsal_fo.concepts.auto_assign import choose
    from gsal_fo.concepts.similarity import Prototypes, assign_clip

    owner = np.repeat(np.arange(len(items)), [len(labels) for _, _, labels in items])
    truth = np.array([label for _, _, labels in items for label in labels])
    runs, auto, took_clip = [], [], 0
    for draw in range(draws):
        labeled = chosen(draw, len(items), share)
        known = np.isin(owner, labeled)
        model = Prototypes.fit(vectors[known], truth[known].tolist(), names)
        runs.append(judge(model.assign(vectors[~known]).fine, names, truth[~known].tolist(), rare))
        graph, seen, text, background = clip
        ids = {f"{i:05d}": owner == i for i in labeled.tolist()}
        labels = {i: truth[own].tolist() for i, own in ids.items()}
        one, other = ({i: rows[own] for i, own in ids.items()} for rows in (seen, vectors))
        if choose(graph, labels, one, other, text, background).assign == "clip":
            took_clip += 1
            fine = assign_clip(seen[~known], text, background).fine
            auto.append(judge(fine, graph.fine, truth[~known].tolist(), rare))
        else:
            auto.append(runs[-1])
    return {**mean(runs), "auto": {**mean(auto), "took clip": took_clip / draws}}


def mean(runs: list[dict[str, float]]) -> dict[str, float]:
    return {k: float(np.nanmean([r[k] for r in runs])) for k in runs[0]}


def detector(items: list[Item], graph: Any, rare: list[str], *, backbone: str, steps: int) -> dict[str, float]:
    """Trained on the first draw's 10 %; its box head's posterior at the true boxes of all other images."""
    import torch
    from PIL import Image

    from gsal_fo.concepts.similarity import assign_detector
    from gsal_fo.config import ConceptConfig, TrainConfig, to_dict
    from gsal_fo.run_folder import shards
    from gsal_fo.worker.process import run_worker
    from lightning_modules.detectors import faster_rcnn as detectors

    labeled = set(chosen(0, len(items), 0.1).tolist())
    with tempfile.TemporaryDirectory() as place:
        run, rows = Path(place) / "run", []
        for i in sorted(labeled):
            pixels, boxes, labels = items[i]
            Image.fromarray(pixels).save(Path(place) / f"{i}.png")
            rows.append({"id": str(i), "filepath": f"{place}/{i}.png", "role": "labeled", "labels": labels})
            rows[-1]["boxes"] = boxes.ravel().tolist()
        shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), run / "manifest.parquet")
        config = to_dict(TrainConfig(backbone=backbone, steps=steps))
        shards.write_json({"kind": "train", "config": config, "out": f"{place}/out"}, run / "config.json")
        for _ in run_worker("lightning_modules.train", ["--run-dir", str(run)], log=run / "worker.log"):
            pass
        model, facts = detectors.load(Path(place) / "out")
    fine, truth = [], []
    with torch.inference_mode():
        for i, (pixels, boxes, labels) in enumerate(items):
            if i not in labeled:
                posterior = posteriors(model, pixels, boxes)
                fine.append(assign_detector(posterior, facts["classes"], graph.fine, ConceptConfig().floor).fine)
                truth += labels
    return judge(np.concatenate(fine), graph.fine, truth, rare)


def posteriors(model: Any, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Class probabilities (n, C + 1) at given boxes ``xywh_rel``."""
    import torch

    from gsal_fo.boxes import xywh_rel_to_xyxy_px
    from lightning_modules.data import to_float

    batch, _ = model.transform([to_float(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1))])
    height, width = batch.image_sizes[0]
    at = torch.from_numpy(xywh_rel_to_xyxy_px(boxes, width, height).astype(np.float32))
    heads = model.roi_heads
    pooled = heads.box_roi_pool(model.backbone(batch.tensors), [at], batch.image_sizes)
    return heads.box_predictor(heads.box_head(pooled))[0].softmax(1).numpy()


def measure(name: str, limit: int, draws: int, seed: int, detector_steps: int) -> dict[str, Any]:
    import torch

    from gsal_fo.concepts.graph import ConceptGraph
    from gsal_fo.concepts.similarity import assign_clip, background_embeddings, text_embeddings
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
    graph = ConceptGraph.load(ROOT / "gsal_fo" / "graphs" / f"{GRAPHS[name]}.yaml")
    with torch.inference_mode():
        text = text_embeddings(graph, clip.encode_text)
        background = background_embeddings(graph, clip.encode_text)
    out["clip"] = judge(assign_clip(seen, text).fine, graph.fine, truth, rare)
    encoders = {"embedded CLIP": seen}
    weights = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.safetensors"
    if weights.is_file():
        encoders["MobileNetV2"] = embed(items, load_encoder(f"mobilenet_v2:{weights}"))
    for encoder, vectors in encoders.items():
        for share in (0.05, 0.1):
            key, rival = f"prototypes, {encoder}, {share:.0%}", (graph, seen, text, background)
            out[key] = prototypes(vectors, items, names, rare, share, draws, rival)
    if detector_steps:
        backbone = f"mobilenet_v2:{weights}" if weights.is_file() else "embedded"
        out["detector, 10%"] = detector(items, graph, rare, backbone=backbone, steps=detector_steps)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(GRAPHS), help=f"of {', '.join(GRAPHS)}")
    parser.add_argument("--limit", type=int, default=400, help="images per set (default %(default)s)")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detector", type=int, default=0, metavar="STEPS", help="train a detector, too")
    args = parser.parse_args()
    for name in args.sets:
        print(json.dumps(measure(name, args.limit, args.draws, args.seed, args.detector), indent=1), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
