"""`gsal export | annotate | ingest | status | cancel`: a batch to the labelers and back; one call of ``gsal_fo.fo``."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gsal_fo.commands import ROUND, Result, add_samples, number, samples_of
from gsal_fo.worker.bars import Bars

FORMATS = ("coco", "yolo", "voc", "cvat", "labelstudio", "fiftyone")
FLOOR = 0.3


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    def command(
        name: str, run: Callable[[argparse.Namespace], Result], text: str, **which: bool
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, parents=[shared], help=text, description=text)
        add_samples(sub, **which)
        sub.set_defaults(run=run)
        return sub

    sub = command("export", export, "write a tagged batch for the labeling tool")
    sub.add_argument("--out", type=Path, required=True, help="folder to write, new or empty")
    sub.add_argument("--format", choices=FORMATS, default="coco", help="default %(default)s")
    sub.add_argument("--tag", help="which batch (default: the latest round)")
    sub.add_argument(
        "--media", choices=("copy", "link", "list"), default="copy", help="images: copied, linked, or their paths only"
    )
    _prelabels(sub)
    sub.add_argument(
        "--force", action="store_true", help="replace files of an earlier export there, though they were changed since"
    )

    sub = command("annotate", annotate, "hand a tagged batch to CVAT, Label Studio or Labelbox, through FiftyOne")
    sub.add_argument("anno_key", help="name of the annotation run, by which `gsal ingest` takes the labels back")
    sub.add_argument("--tag", help="which batch (default: the latest round)")
    sub.add_argument(
        "--backend", help="one that FiftyOne is configured with; its FIFTYONE_ variables hold address and credentials"
    )
    sub.add_argument("--url", help="address of the server (default: as FiftyOne is configured)")
    _prelabels(sub)

    sub = command("ingest", ingest, "take labels back", view=False)
    sub.add_argument(
        "labels",
        help="label file, folder or zip of a labeling tool, a Detections field, or an annotation run",
    )
    sub.add_argument(
        "--accept-prelabels",
        action="store_true",
        help="labels that are still the exported pre-labels count, too: somebody has looked at each",
    )
    sub.add_argument(
        "--empty-means-done",
        action="store_true",
        help="an image that came back without a box holds nothing: somebody has finished each",
    )
    sub.add_argument("--format", choices=("auto", *FORMATS), default="auto", help="default %(default)s: found out")
    sub.add_argument("--label-field", default="ground_truth", help="Detections field (default %(default)s)")
    sub.add_argument("--manifest", type=Path, help="manifest.json of the export (default: beside the labels)")

    command("status", status, "how many images of each round are picked, sent and labeled", view=False, slice=False)

    text = "take a round back: its tag and fields go, labels never"
    sub = command("cancel", cancel, text, view=False, slice=False)
    sub.add_argument("--round", type=ROUND, help="its number (default: the latest)")


def _prelabels(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--no-prelabels", action="store_true", help="leave the detector's proposals out")
    sub.add_argument(
        "--floor", type=number(0, 1), default=FLOOR, help="lowest score of a pre-label (default %(default)s)"
    )


def export(args: argparse.Namespace) -> Result:
    from gsal_fo import fo
    from gsal_fo.fo.console import batch_of

    tag, batch = batch_of(samples_of(args), args.tag)
    options = {
        "media": args.media,
        "prelabels": not args.no_prelabels,
        "floor": args.floor,
        "force": args.force,
    }
    out = fo.export(batch, args.out, args.format, **options)
    data = {"out": str(out), "tag": tag, "images": len(batch), "format": args.format, "media": args.media}
    return Result(data, f"{len(batch)} images of {tag} written to {out}; next: gsal ingest {args.dataset} LABELS")


def annotate(args: argparse.Namespace) -> Result:
    from gsal_fo import fo
    from gsal_fo.fo.console import backend_of, batch_of

    backend = backend_of(args.backend)
    tag, batch = batch_of(samples_of(args), args.tag)
    options: dict[str, Any] = {"prelabels": not args.no_prelabels, "floor": args.floor}
    options |= {"url": args.url} if args.url else {}
    key = fo.annotate(batch, args.anno_key, backend=backend, **options)
    data = {"anno_key": key, "tag": tag, "images": len(batch), "backend": backend}
    return Result(data, f"{len(batch)} images of {tag} handed to {backend}; next: gsal ingest {args.dataset} {key}")


def ingest(args: argparse.Namespace) -> Result:
    from gsal_fo import fo

    options = {
        "format": args.format,
        "label_field": args.label_field,
        "manifest": args.manifest,
        "accept_prelabels": args.accept_prelabels,
        "empty_means_done": args.empty_means_done,
    }
    report = fo.ingest(samples_of(args), args.labels, **options)
    lines = [report.summary(), *(f"  {text}" for text in report.details())]
    return Result(report.to_dict(), "\n".join(lines))


def status(args: argparse.Namespace) -> Result:
    from gsal_fo import fo

    rounds = fo.status(samples_of(args))
    lines = [f"{r['tag']}: {r['picked']} picked, {r['sent']} sent, {r['labeled']} labeled" for r in rounds]
    return Result({"rounds": rounds}, "\n".join(lines) or "no round yet; run `gsal select`")


def cancel(args: argparse.Namespace) -> Result:
    from gsal_fo import fo

    with Bars() as bars:
        done = fo.cancel(samples_of(args), round=args.round, on_event=bars)
    text = f"{done['tag']} cancelled: {done['images']} images are in no round any more"
    return Result(done, f"{text}; the labels of {done['labeled']} stay" if done["labeled"] else text)
