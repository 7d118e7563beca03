"""`gsal train | fit | score | select | setup-views | visualize`: one call of ``gsal_fo.fo`` each."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gsal_fo import config
from gsal_fo.commands import PROCESSES, SEED, Result, add_samples, add_settings, given, number, samples_of, whole
from gsal_fo.fit_settings import FitSettings
from gsal_fo.user_files import parse_yaml, shown
from gsal_fo.worker.bars import Bars

ENCODERS = "embedded, torchvision:MODEL, timm:MODEL, open_clip:MODEL:TAG, detector:FOLDER, mobilenet_v2:FILE"
STAGES = ("detector", "diffusion", "concepts", "train")


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    def command(
        name: str, run: Callable[[argparse.Namespace], Result], text: str, **which: bool
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, parents=[shared], help=text, description=text)
        add_samples(sub, **which)
        sub.set_defaults(run=run)
        return sub

    sub = command("train", train, "train the detector on the labeled images")
    _worker(sub)
    sub.add_argument("--out", type=Path, help="checkpoint folder (default: in the run folder)")
    add_settings(sub, config.TrainConfig, "training")

    sub = command("fit", fit, "fit a diffusion model on the images, without labels")
    sub.add_argument("--out", type=Path, required=True, help="model folder, for `gsal score --diffusion`")
    sub.add_argument("--processes", type=PROCESSES, default=1, help="worker processes, one per GPU (default 1)")
    sub.add_argument("--run-dir", type=Path, help="where latents and checkpoints lie meanwhile (default: beside --out)")
    sub.add_argument("--stages", nargs="+", metavar="NAME", help="maps of the encoder (default: strides 8 and 16)")
    add_settings(sub, FitSettings, "fit", skip=("stages",))

    sub = command("score", score, "score and rank the unlabeled images")
    _worker(sub)
    sub.add_argument("--concepts", required=True, metavar="FILE", help="concept graph (YAML); see `gsal concepts`")
    sub.add_argument("--proposals", metavar="FIELD", help="boxes of this field instead of a detector's")
    sub.add_argument("--detector", metavar="FOLDER", help='of `gsal train`, or "grid" (default: train one first)')
    sub.add_argument("--diffusion", default=None, help='"embedded" (default), a folder (`gsal fit`) or a hub id')
    sub.add_argument("--clip", default=None, help='"embedded" (default), an open_clip name, or a folder')
    sub.add_argument("--pretrained", default=None, help="open_clip's tag or checkpoint file")
    sub.add_argument(
        "--assign", choices=config.ASSIGN, default=None, help="how proposals get their concept (default auto)"
    )
    sub.add_argument("--encoder", default=None, help=f"embeds crops for prototypes (default: CLIP): {ENCODERS}")
    sub.add_argument("--config", type=Path, metavar="YAML", help="score settings, as written into each run folder")
    stages = f"a setting of {', '.join(STAGES)}; may be repeated"
    sub.add_argument("--set", action="append", default=[], metavar="STAGE.NAME=VALUE", help=stages)
    sub.add_argument("--no-cache", action="store_true", help="compute image statistics again")
    _params(sub)

    sub = command("select", select, "tag the best images for labeling")
    sub.add_argument("--label-field", help="Detections field with the labels (default: the scoring run's)")
    sub.add_argument("--budget", type=_amount, required=True, help="how much to label, in --unit")
    sub.add_argument("--unit", choices=("images", "boxes", "minutes"), default="images", help="default %(default)s")
    sub.add_argument(
        "--seconds-per-image", type=number(0, 1e6), help="of a labeler, for a budget of minutes (default 8)"
    )
    sub.add_argument("--seconds-per-box", type=number(0, 1e6), help="of a labeler, for a budget of minutes (default 7)")
    sub.add_argument(
        "--distinct",
        type=number(0, 1),
        metavar="COSINE",
        help="skip images whose embedding is as near as this to an earlier pick or a labeled image, such as 0.95",
    )
    sub.add_argument("--run-key", help="scoring run (default: the latest)")
    _params(sub)

    text = "arrange the App: sidebar, saved views, colors, workspace"
    command("setup-views", setup_views, text, view=False, slice=False)

    sub = command("visualize", visualize, "map images and proposals (UMAP) and make them searchable by similarity")
    sub.add_argument("--run-key", help="scoring run (default: the latest)")
    sub.add_argument("--method", choices=("umap", "pca"), default="umap", help="default %(default)s")
    sub.add_argument(
        "--limit", type=whole(1, 10**9), default=20_000, help="at most so many images, best first (default %(default)s)"
    )
    sub.add_argument("--seed", type=SEED, default=0)


def _worker(sub: argparse.ArgumentParser) -> None:
    _labels(sub)
    sub.add_argument("--labeled-tag", help="tag of labeled images (default: those with a value in the label field)")
    sub.add_argument("--processes", type=PROCESSES, default=1, help="worker processes, one per GPU (default 1)")
    sub.add_argument("--run-dir", type=Path, help="run folder (default: in GSAL_HOME)")


def _labels(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--label-field", default="ground_truth", help="Detections field (default %(default)s)")


def _params(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--params", type=Path, metavar="YAML", help="method constants; flags below go first")
    add_settings(sub, config.GsalParams, "method constants", skip=("settings",))
    sub.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the strategy, such as aggregate=mean; `gsal strategies` lists them; may be repeated",
    )


def _params_of(args: argparse.Namespace) -> dict[str, Any]:
    """The constants that the user named, flags over the file's; checked here, before any work."""
    from gsal_fo.acquisition import registry

    named = config.named_in(config.GsalParams, args.params) if args.params else {}
    named |= given(args, config.GsalParams, skip=("settings",))
    if args.setting:
        named["settings"] = dict(_setting(item) for item in args.setting)
    registry.of(config.from_dict(config.GsalParams, named))
    return named


def _setting(item: str) -> tuple[str, Any]:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise ValueError(f"--setting takes NAME=VALUE; got {item!r}")
    return name, parse_yaml(value, f"--setting {name}")


def _stage_settings(args: argparse.Namespace) -> tuple[config.ScoreConfig, config.TrainConfig | None]:
    """``--config`` with every ``--set`` applied; the second is None unless a ``train`` setting was named."""
    base = config.to_dict(config.load_yaml(config.ScoreConfig, args.config) if args.config else config.ScoreConfig())
    base["train"] = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        stage, dot, name = key.partition(".")
        if not (equals and dot and stage in STAGES):
            raise ValueError(f"--set takes STAGE.NAME=VALUE with a stage of {', '.join(STAGES)}; got {shown(item)}")
        base[stage][name] = parse_yaml(value, f"--set {key}")
    train = base.pop("train")
    return config.from_dict(config.ScoreConfig, base), config.from_dict(config.TrainConfig, train) if train else None


def train(args: argparse.Namespace) -> Result:
    from gsal_fo import fo

    settings = config.from_dict(config.TrainConfig, given(args, config.TrainConfig))
    with Bars() as bars:
        out = fo.train(
            samples_of(args),
            label_field=args.label_field,
            labeled_tag=args.labeled_tag,
            out=args.out,
            config=settings,
            run_dir=args.run_dir,
            processes=args.processes,
            on_event=bars,
        )
    return Result({"checkpoint": str(out)}, f"detector written to {out}")


def fit(args: argparse.Namespace) -> Result:
    settings = given(args, FitSettings, skip=("stages",))
    config.from_dict(FitSettings, settings)  # checked here, before any work
    from gsal_fo import fo

    with Bars() as bars:
        out = fo.fit(
            samples_of(args),
            out=args.out,
            run_dir=args.run_dir,
            processes=args.processes,
            on_event=bars,
            stages=args.stages,
            **settings,
        )
    return Result({"model": str(out)}, f"diffusion model written to {out}; use it with `gsal score --diffusion {out}`")


def score(args: argparse.Namespace) -> Result:
    params = _params_of(args)
    settings, training = _stage_settings(args)
    from gsal_fo import fo
    from gsal_fo.fo.console import dataset_of

    models = ("diffusion", "clip", "pretrained", "assign", "encoder")
    named = {k: v for k in models if (v := getattr(args, k)) is not None}
    samples = samples_of(args)
    with Bars() as bars:
        key = fo.score(
            samples,
            concepts=args.concepts,
            label_field=args.label_field,
            proposals=args.proposals,
            detector=args.detector,
            params=params,
            config=settings,
            train=training,
            run_dir=args.run_dir,
            labeled_tag=args.labeled_tag,
            processes=args.processes,
            cache=not args.no_cache,
            on_event=bars,
            **named,
        )
    done = fo.runs.load(dataset_of(samples), key).config
    data = {"run_key": key, "run_dir": str(done.run_dir), "counts": done.counts, "notes": done.notes}
    counts = done.counts
    text = f"{key}: {counts['scored']} of {counts['pool']} unlabeled images ranked, {counts['failed']} left out"
    return Result(data, f"{text}; next: gsal select {args.dataset} --budget N")


def select(args: argparse.Namespace) -> Result:
    params = _params_of(args)
    from gsal_fo import fo
    from gsal_fo.acquisition.picking import Costs
    from gsal_fo.fo.console import selection

    named = {"per_image": args.seconds_per_image, "per_box": args.seconds_per_box}
    costs = Costs(**{name: value for name, value in named.items() if value is not None})
    samples = samples_of(args)
    with Bars() as bars:
        fo.select(
            samples,
            args.budget,
            unit=args.unit,
            costs=costs,
            distinct=args.distinct,
            label_field=args.label_field,
            run_key=args.run_key,
            params=params,
            on_event=bars,
        )
    key, tag, picks = selection(samples)
    lines = [f"{len(picks)} images tagged {tag}; next: gsal export {args.dataset} --out {tag}"]
    lines += [f"  {p['rationale']}" for p in picks[:5]]
    return Result({"tag": tag, "select_key": key, "picks": picks}, "\n".join(lines))


def _amount(text: str) -> float:
    """A budget: a whole number where it is one, so that it is recorded as such."""
    value = number(0, 1e9)(text)
    return int(value) if value == int(value) else value


def setup_views(args: argparse.Namespace) -> Result:
    from gsal_fo import fo

    notes: list[str] = []
    names = fo.setup_views(samples_of(args), on_event=lambda event: notes.append(event["message"]))
    text = "\n".join([f"saved views in the App: {', '.join(names)}", *(f"  note: {note}" for note in notes)])
    return Result({"views": names, "notes": notes}, text)


def visualize(args: argparse.Namespace) -> Result:
    from gsal_fo import fo

    keys = fo.visualize(samples_of(args), run_key=args.run_key, method=args.method, limit=args.limit, seed=args.seed)
    return Result({"brain_keys": keys}, f"in the App's Embeddings panel and similarity search: {', '.join(keys)}")
