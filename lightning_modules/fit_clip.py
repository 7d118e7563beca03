"""Makes the embedded CLIP from synthetic thin-film slices and captions alone.

    python -m lightning_modules.fit_clip --out gsal_fo/embedded/clip

Images: windows around synthetic defects, cut as loosely as a detector's proposals are, and windows without any. Texts:
the packaged graph's templates and prompts, and phrases of its attributes and families: those words mean something.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from gsal_fo.boxes import iou
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import BACKGROUND, assign_clip, background_embeddings, text_embeddings
from gsal_fo.synthetic.thin_film import CLASSES, RARE, TEXTURES, Slice, render
from lightning_modules.data import crops, to_float
from lightning_modules.nets import Clip, load_clip

TRAIN_SEED, TEST_SEED = 10_000_000, 20_000_000  # far from the seeds of demos and tests
SIDE, INPUT = 256, 64  # px of a slice, of a crop
PAD = 0.2  # METHOD.md section 2
MODEL = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": INPUT, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}
KINDS = {  # what a window without a defect shows -> how the graph's background prompt for it begins
    "film": "uniform film",
    "boundary": "layer boundary",
    "surface": "film surface",
    "air": "empty dark air",
    "mottled_patch": "mottled",
    "fiducial_grid": "regular fiducial",
    "grain_band": "coarse grain",
}


def packaged_graph() -> ConceptGraph:
    """The thin-film graph that ships with the package."""
    return ConceptGraph.load(Path(str(resources.files("gsal_fo"))) / "graphs" / "thin_film.yaml")


def make_slices(count: int, seed: int) -> list[Slice]:
    """Slices in which the six classes are equally common, a third with a harmless texture, a tenth without defects."""
    out = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        want = rng.choice(CLASSES, 0 if rng.random() < 0.1 else int(rng.integers(2, 6)))
        textures = [str(rng.choice(TEXTURES))] if rng.random() < 0.35 else []
        out.append(render(rng, SIDE, want=[str(w) for w in want], textures=textures))
    return out


def jittered(box: np.ndarray, rng: np.random.Generator, least: float = 0.4) -> np.ndarray:
    """A box (4,) ``xywh_px`` moved and resized as a detector would, IoU with the original at least ``least``."""
    for _ in range(20):
        x, y, w, h = box
        new_w, new_h = w * np.exp(rng.normal(0, 0.25)), h * np.exp(rng.normal(0, 0.25))
        cx, cy = x + w / 2 + rng.normal(0, 0.13) * w, y + h / 2 + rng.normal(0, 0.13) * h
        out = np.array([cx - new_w / 2, cy - new_h / 2, new_w, new_h])
        if iou(out[None], box[None])[0, 0] >= least:
            return out
    return box


def loose(box: np.ndarray, rng: np.random.Generator, largest: float = 112) -> np.ndarray:
    """A square window that holds the box somewhere inside, up to ``largest`` px: what a grid window shows."""
    least = max(box[2], box[3]) + 2
    side = min(SIDE, max(least, np.exp(rng.uniform(np.log(min(24, largest)), np.log(largest)))))
    x = rng.uniform(max(0, box[0] + box[2] - side), min(box[0], SIDE - side) + 1e-6)
    y = rng.uniform(max(0, box[1] + box[3] - side), min(box[1], SIDE - side) + 1e-6)
    return np.array([x, y, side, side])


def inside_share(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Share (n,) of each box (n, 4) that lies in the window (4,); all ``xywh_px``."""
    low = np.maximum(boxes[:, :2], window[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], window[:2] + window[2:])
    return np.clip(high - low, 0, None).prod(1) / np.maximum(boxes[:, 2:].prod(1), 1e-9)


def empty_window(item: Slice, rng: np.random.Generator) -> np.ndarray | None:
    """A window (4,) ``xywh_px`` with at most a twelfth of any defect in it: of a proposal's size, or larger."""
    for _ in range(12):
        side, stretch = np.exp(rng.uniform(np.log(11), np.log(150))), np.exp(rng.uniform(-0.9, 0.9))
        w, h = min(side * stretch, SIDE), min(side / stretch, SIDE)
        x, y = rng.uniform(0, SIDE - w + 1e-6), rng.uniform(0, SIDE - h + 1e-6)
        if item.textures and rng.random() < 0.35:  # harmless textures must be known as such
            _, (tx, ty, tw, th) = item.textures[0]
            x, y = tx + rng.uniform(0, 1) * tw - w / 2, ty + rng.uniform(0, 1) * th - h / 2
            x, y = np.clip(x, 0, SIDE - w), np.clip(y, 0, SIDE - h)
        window = np.array([x, y, w, h])
        grown = np.array([x - PAD / 2 * w, y - PAD / 2 * h, w * (1 + PAD), h * (1 + PAD)])
        if not len(item.boxes) or inside_share(item.boxes, grown).max() < 1 / 12:
            return window
    return None


def kind_of(item: Slice, window: np.ndarray) -> str:
    """What a window without defects shows, a key of ``KINDS``."""
    x, y, w, h = window
    for name, box in item.textures:
        shared = inside_share(np.array([box]), window)[0] * box[2] * box[3]
        if shared > 0.3 * w * h or shared > 0.5 * box[2] * box[3]:
            return name
    part = item.image[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1].astype(np.float32)
    rows, columns = (np.linspace(0, n, min(6, n), endpoint=False).astype(int) for n in part.shape)
    sizes = np.diff(rows, append=part.shape[0])[:, None] * np.diff(columns, append=part.shape[1])
    means = np.add.reduceat(np.add.reduceat(part, rows, axis=0), columns, axis=1) / sizes
    dark = (means < 55).mean()
    if dark > 0.9:
        return "air"
    if dark > 0.05:
        return "surface"
    return "boundary" if np.ptp(means) > 14 else "film"


def captions(graph: ConceptGraph, rng: np.random.Generator, each: int = 3) -> tuple[list[str], list[str], np.ndarray]:
    """Texts of one step.

    Returns:
        (texts, owners, attributes): the first ``len(owners)`` texts name one fine class or one kind of background each,
        and ``owners`` says which; the rest are phrases of attributes and families, and ``attributes`` (fine, phrases)
        says of which fine classes each is true.
    """
    text = lambda phrase: graph.templates[rng.integers(len(graph.templates))].format(phrase)  # noqa: E731
    texts, owners = [], []
    for fine in graph.fine:
        for _ in range(each):
            texts.append(text(rng.choice(graph.prompts(fine))))
            owners.append(fine)
    for kind, start in KINDS.items():
        texts.append(text(next(p for p in graph.background if p.startswith(start))))
        owners.append(kind)
    paths = {fine: set(graph.path(fine)[1:]) for fine in graph.fine}
    wanted = [{node} for node in (*graph.coarse, *graph.abstract) for _ in range(2)]
    for fine in graph.fine:  # and phrases of several words, "faint thin fracture defect"
        nodes = sorted(paths[fine])
        wanted.append({str(v) for v in rng.choice(nodes, min(len(nodes), int(rng.integers(2, 4))), replace=False)})
    for nodes_ in wanted:
        words = [*sorted(nodes_ & set(graph.abstract)), *sorted(nodes_ & set(graph.coarse))]
        texts.append(text(f"{' '.join(words)} {rng.choice(['defect', 'flaw', 'anomaly'])}"))
    truth = np.array([[nodes_ <= paths[fine] for nodes_ in wanted] for fine in graph.fine])
    return texts, owners, truth


class Windows(IterableDataset):
    """Endless batches: (crops uint8, class weights (B, fine + kinds) of 1 = shown, 0 = not, -1 = leave out)."""

    def __init__(self, slices: list[Slice], graph: ConceptGraph, *, batch: int, seed: int) -> None:
        self.slices, self.graph, self.batch, self.seed = slices, graph, batch, seed
        self.by_class = {
            f: [(i, j) for i, s in enumerate(slices) for j, label in enumerate(s.labels) if label == f]
            for f in graph.fine
        }
        self.names = [*graph.fine, *KINDS]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([self.seed, 1])
        while True:
            pairs = [self._defect(rng) if rng.random() < 0.58 else self._empty(rng) for _ in range(self.batch)]
            yield torch.cat([p[0] for p in pairs]), torch.from_numpy(np.stack([p[1] for p in pairs]))

    def _defect(self, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        rows = self.by_class[str(rng.choice(self.graph.fine))]
        i, j = rows[rng.integers(len(rows))]
        item = self.slices[i]
        window = jittered(item.boxes[j], rng) if rng.random() < 0.6 else loose(item.boxes[j], rng)
        shown = np.zeros(len(self.names), dtype=np.float32)
        for share, label in zip(inside_share(item.boxes, window), item.labels, strict=True):
            k = self.names.index(label)
            shown[k] = 1 if share > 0.6 else (-1 if share > 0.1 and shown[k] == 0 else shown[k])
        shown[self.names.index(item.labels[j])] = 1
        return _cut(item, window, rng), shown

    def _empty(self, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        while True:
            item = self.slices[rng.integers(len(self.slices))]
            if (window := empty_window(item, rng)) is not None:
                break
        shown = np.zeros(len(self.names), dtype=np.float32)
        shown[self.names.index(kind_of(item, window))] = 1
        return _cut(item, window, rng), shown


def _cut(item: Slice, window: np.ndarray, rng: np.random.Generator | None) -> Tensor:
    """One crop (1, 1, INPUT, INPUT) uint8, cut by the workers' own code; with ``rng`` also flipped and toned."""
    crop = crops(item.image[..., None], window[None] / SIDE, pad=PAD, size=INPUT)
    if rng is None:
        return crop[:, :1]
    if rng.random() < 0.5:
        crop = crop.flip(-1)
    return (crop[:, :1].float() * rng.uniform(0.88, 1.12) + rng.uniform(-10, 10)).clamp(0, 255).to(torch.uint8)


class ClipTrainer(pl.LightningModule):
    """Contrastive training with several positives.

    Class texts: InfoNCE over the step's texts in which every text of a class that the crop shows is a positive (-log
    of the positives' summed softmax mass), so that crops of one class are never each other's negatives. Attributes: a
    sigmoid loss per (crop, phrase) pair with its own bias, as SigLIP (arXiv:2303.15343), as several hold at once.
    """

    def __init__(self, model: Any, tokenizer: Any, graph: ConceptGraph, *, steps: int, lr: float, seed: int) -> None:
        super().__init__()
        self.model, self.tokenizer, self.graph, self.steps, self.lr = model, tokenizer, graph, steps, lr
        self.rng = np.random.default_rng([seed, 2])
        self.attribute_scale = nn.Parameter(torch.tensor(2.0))
        self.attribute_bias = nn.Parameter(torch.tensor(-1.0))
        self.names = [*graph.fine, *KINDS]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, shown = batch  # (B, 1, S, S) uint8, (B, classes)
        texts, owners, truth = captions(self.graph, self.rng)
        x = (to_float(images) - 0.5) / 0.25
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        image = F.normalize(self.model.encode_image(x), dim=1)  # (B, D)
        text = F.normalize(self.model.encode_text(self.tokenizer(texts).to(self.device)), dim=1)  # (n, D)
        n = len(owners)
        positive = shown[:, [self.names.index(o) for o in owners]]  # (B, n)
        logits = self.model.logit_scale.exp() * image @ text[:n].T
        logits = logits.masked_fill(positive < 0, -torch.inf)
        loss = -(logits.masked_fill(positive < 1, -torch.inf).logsumexp(1) - logits.logsumexp(1)).mean()
        fine = shown[:, : len(self.graph.fine)]
        holds = (fine.clamp(min=0) @ torch.from_numpy(truth).float().to(fine)) > 0  # (B, phrases)
        pair = self.attribute_scale.exp() * image @ text[n:].T + self.attribute_bias
        attribute = F.binary_cross_entropy_with_logits(pair, holds.float())
        if batch_idx % 50 == 0:
            print(f"step {batch_idx}: loss {loss.item():.3f}, attributes {attribute.item():.3f}", flush=True)
        return loss + attribute

    def on_before_zero_grad(self, optimizer: Any) -> None:
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))

    def configure_optimizers(self) -> Any:
        flat = [p for p in self.parameters() if p.ndim < 2]
        wide = [p for p in self.parameters() if p.ndim >= 2]
        groups = [{"params": wide, "weight_decay": 0.05}, {"params": flat, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        warm = max(1, self.steps // 20)

        def share(step: int) -> float:
            return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1, step / self.steps))) + 1e-3)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def save_clip(model: Any, out: Path) -> None:
    """Write an open_clip folder with half-precision weights."""
    out.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    save_file(half, out / "open_clip_model.safetensors")
    (out / "open_clip_model.safetensors").chmod(0o644)  # safetensors writes for the owner alone


class Snapshot(pl.Callback):
    """Saves the model now and then, so that a long run can be tried before its end."""

    def __init__(self, out: Path, every: int = 300) -> None:
        self.out, self.every = out, every

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        """One step more."""
        if trainer.global_step % self.every == 0:
            save_clip(module.model, self.out)


def _embedded(clip: Clip, pieces: list[Tensor]) -> np.ndarray:
    with torch.no_grad():
        parts = [
            clip.embed(to_float(torch.cat(pieces[i : i + 256])).expand(-1, 3, -1, -1))
            for i in range(0, len(pieces), 256)
        ]
    return torch.cat(parts).numpy()


def measure(clip: Clip, graph: ConceptGraph, slices: list[Slice], seed: int = 0) -> dict[str, Any]:
    """Quality on slices that the model never saw: shares in [0, 1] as named."""
    rng = np.random.default_rng([seed, 3])
    text, background = text_embeddings(graph, clip.encode_text), background_embeddings(graph, clip.encode_text)
    assert background is not None
    exact, moved, windows, empty, kinds, labels = [], [], [], [], [], []
    for item in slices:
        for box, label in zip(item.boxes, item.labels, strict=True):
            exact.append(_cut(item, box, None))
            moved.append(_cut(item, jittered(box, rng), None))
            windows.append(_cut(item, loose(box, rng, 64), None))
            labels.append(graph.fine.index(label))
        for _ in range(4):
            if (window := empty_window(item, rng)) is not None:
                empty.append(_cut(item, window, None))
                kinds.append(kind_of(item, window))
    truth, kind = np.array(labels), np.array(kinds)
    embedded = {
        "exact": _embedded(clip, exact),
        "jittered": _embedded(clip, moved),
        "window64": _embedded(clip, windows),
    }
    result: dict[str, Any] = {"defect_crops": len(truth), "empty_windows": len(empty)}
    rare = [graph.fine.index(r) for r in RARE]
    for name, vectors in embedded.items():
        plain = assign_clip(vectors, text, None, clip.logit_scale).fine
        wary = assign_clip(vectors, text, background, clip.logit_scale).fine
        result[f"{name}_fine_accuracy"] = float((plain == truth).mean())
        result[f"{name}_rare_recall"] = float((plain == truth)[np.isin(truth, rare)].mean())
        result[f"{name}_accuracy_with_background"] = float((wary == truth).mean())
        result[f"{name}_taken_for_background"] = float((wary == BACKGROUND).mean())
    vectors = _embedded(clip, empty)
    wary = assign_clip(vectors, text, background, clip.logit_scale).fine
    result["empty_abstain"] = float((wary == BACKGROUND).mean())
    result["empty_taken_for_rare"] = float(np.isin(wary, rare).mean())
    for name in TEXTURES:
        result[f"{name}_taken_for_rare"] = float(np.isin(wary[kind == name], rare).mean())
    plain = assign_clip(vectors, text, None, clip.logit_scale).fine
    result["empty_taken_for_rare_without_background"] = float(np.isin(plain, rare).mean())
    phrases = [t.format(f"{a} defect") for a in graph.abstract for t in graph.templates]
    rows = clip.encode_text(phrases).view(len(graph.abstract), len(graph.templates), -1).mean(1).numpy()
    cosine = embedded["jittered"] @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T  # (P, attributes)
    has = np.array([[a in graph.abstract_of(f) for a in graph.abstract] for f in graph.fine])[truth]
    pairs = has[:, :, None] & ~has[:, None, :]  # (P, present, absent)
    right = cosine[:, :, None] > cosine[:, None, :]
    result["attribute_pairs_right"] = float(right[pairs].mean())
    confusion = {f: {} for f in graph.fine}  # type: dict[str, dict[str, int]]
    guess = assign_clip(embedded["jittered"], text, background, clip.logit_scale).fine
    for t, g in zip(truth, guess, strict=True):
        name = "background" if g < 0 else graph.fine[g]
        confusion[graph.fine[t]][name] = confusion[graph.fine[t]].get(name, 0) + 1
    result["jittered_confusion"] = confusion
    return result


def main(argv: list[str] | None = None) -> None:
    """Command line; prints the measured quality as JSON and writes it beside the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=3000, help="synthetic training slices")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    import open_clip

    torch.set_num_threads(args.threads)
    pl.seed_everything(args.seed, verbose=False)
    begin, graph = time.monotonic(), packaged_graph()
    slices = make_slices(args.slices, TRAIN_SEED + args.seed)
    rendered = time.monotonic()
    print(f"rendered {len(slices)} slices in {rendered - begin:.0f} s", flush=True)
    model = open_clip.CLIP(**MODEL).to(memory_format=torch.channels_last)
    trainer_module = ClipTrainer(
        model, open_clip.SimpleTokenizer(context_length=32), graph, steps=args.steps, lr=args.lr, seed=args.seed
    )
    trainer = pl.Trainer(
        max_steps=args.steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        callbacks=[Snapshot(args.out)],
    )
    trainer.fit(trainer_module, DataLoader(Windows(slices, graph, batch=args.batch, seed=args.seed), batch_size=None))
    save_clip(model.eval(), args.out)
    seconds = time.monotonic() - rendered
    quality = measure(load_clip(str(args.out)), graph, make_slices(400, TEST_SEED))
    made = {
        "command": f"python -m lightning_modules.fit_clip --out {args.out} --seed {args.seed} --threads {args.threads}",
        "settings": {k: v for k, v in vars(args).items() if k != "out"},
        "machine": f"{platform.machine()}, {args.threads} threads, CPU",
        "seconds": round(seconds),
        "held_out": quality,
    }
    (args.out / "training.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
