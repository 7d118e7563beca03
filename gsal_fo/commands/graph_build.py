"""`gsal concepts build`: draft a concept graph file from labels, or show what a pool holds beyond them."""

import argparse
from pathlib import Path
from typing import Any

from gsal_fo.commands import Result, number, samples_of, whole

TEXT = "Draft a graph file, which a person then edits: of labels by CLIP's texts or a language model; or of a pool."


def add(actions: Any, shared: argparse.ArgumentParser) -> None:
    sub = actions.add_parser("build", parents=[shared], help="draft a graph file from labels", description=TEXT)
    sub.add_argument("dataset", nargs="?", help="FiftyOne dataset whose labels are taken")
    sub.add_argument("--view", help="saved view whose labels are taken")
    sub.add_argument("--slice", metavar="NAME", help="slice of a grouped dataset whose labels are taken")
    sub.add_argument("--label-field", default="ground_truth", help="Detections field (default %(default)s)")
    sub.add_argument("--labels", type=Path, metavar="FILE", help="labels: COCO file, or text with one label per line")
    sub.add_argument("--out", type=Path, metavar="FILE", help="graph file to write (YAML)")
    sub.add_argument("--force", action="store_true", help="overwrite --out and --page")
    sub.add_argument("--name", help="the graph's name (default: that of --out)")
    sub.add_argument("--clip", default="embedded", help='"embedded" (default), an open_clip name, or a folder')
    sub.add_argument("--pretrained", help="open_clip's tag or checkpoint file")
    sub.add_argument("--vocabulary", type=Path, metavar="YAML", help="words for families and attributes")
    sub.add_argument(
        "--families", type=whole(1, 10**6), metavar="N", help="how many (default: what the labels suggest)"
    )
    sub.add_argument(
        "--attributes", type=whole(0, 1000), default=3, metavar="N", help="at most, per label (default %(default)s)"
    )
    model = sub.add_argument_group("language model", "the key comes from GSAL_LLM_KEY")
    model.add_argument("--llm-url", metavar="URL", help="OpenAI-compatible endpoint, e.g. http://127.0.0.1:11434/v1")
    model.add_argument("--llm-model", metavar="NAME", help="the model's name there")
    model.add_argument(
        "--llm-timeout", type=number(0.1, 86_400), default=120.0, metavar="S", help="for one answer (default 120)"
    )
    model.add_argument("--about", default="", metavar="TEXT", help="what the images show, for the language model")
    found = sub.add_argument_group("candidates of a pool", "clusters of its crops that match no label of the graph")
    found.add_argument(
        "--run", dest="run_ref", metavar="RUN", help="scoring whose pool is searched: run key (with DATASET) or folder"
    )
    found.add_argument(
        "--page", type=Path, default=Path("candidates.html"), help="default %(default)s, and .png beside"
    )
    found.add_argument(
        "--candidates", type=whole(1, 1000), default=12, metavar="N", help="at most (default %(default)s)"
    )
    found.add_argument(
        "--add", action="append", default=[], metavar="NAME[=NEW]", help='add to --out; "all"; may be repeated'
    )
    found.add_argument("--graph", type=Path, metavar="FILE", help="graph to add to (default: the scoring's)")
    sub.set_defaults(run=build)


def build(args: argparse.Namespace) -> Result:
    from gsal_fo.concepts.build import building
    from gsal_fo.concepts.build import file as graph_file
    from gsal_fo.worker.bars import Bars

    if args.dataset is None and (args.view or args.slice):
        raise ValueError("--view and --slice choose images of a dataset; give the dataset too")
    if args.run_ref:
        return _pool(args)
    if (args.dataset is None) == (args.labels is None):
        raise ValueError("give a dataset or --labels FILE, and not both")
    if args.out is None:
        raise ValueError("give the graph file to write with --out FILE")
    if args.labels:
        labels = graph_file.read_labels(args.labels)
    else:
        from gsal_fo.fo.concepts import label_names

        labels = label_names(samples_of(args), args.label_field)
    notes: list[str] = []
    with Bars() as bars:

        def note(text: str) -> None:
            notes.append(text)
            bars.say(text)

        made = building.from_labels(
            labels,
            args.out,
            force=args.force,
            name=args.name,
            clip=args.clip,
            pretrained=args.pretrained,
            vocabulary=args.vocabulary,
            families=args.families,
            attributes=args.attributes,
            llm_url=args.llm_url,
            llm_model=args.llm_model,
            llm_timeout=args.llm_timeout,
            about=args.about,
            on_note=note,
            on_event=bars,
        )
    counts = (
        f"{len(made.graph.fine)} labels in {len(made.graph.coarse)} families, {len(made.graph.abstract)} attributes"
    )
    state = "" if made.written else " (unchanged)"
    data = {"out": str(args.out), "written": made.written, "notes": notes}
    data |= {level: getattr(made.graph, level) for level in ("fine", "coarse", "abstract")}
    return Result(data, f"{args.out}: {counts}{state}; read it, edit it, then `gsal concepts check {args.out}`")


def _pool(args: argparse.Namespace) -> Result:
    from gsal_fo.concepts.build import building
    from gsal_fo.pages import candidates_page
    from gsal_fo.worker.bars import Bars

    if args.labels or args.llm_url or args.llm_model:
        raise ValueError("--run searches a pool and takes neither --labels nor a language model; leave them out")
    run = Path(args.run_ref)
    if args.dataset:
        from gsal_fo.fo.concepts import run_folder

        run = run_folder(samples_of(args), args.run_ref)
    with Bars() as bars:
        made = building.from_pool(
            run,
            args.page,
            add=args.add,
            out=args.out,
            base=args.graph,
            force=args.force,
            most=args.candidates,
            clip=args.clip,
            pretrained=args.pretrained,
            vocabulary=args.vocabulary,
            on_event=bars,
        )
        for text in made.found.notes:
            bars.say(text)
    found = made.found
    lines = [f"{found.unmatched} crops match no concept, {found.sampled} clustered"]
    lines += [f"  {c.name}: {candidates_page.facts(c)}" for c in found.candidates]
    lines.append(f"look at {made.page} and {made.sheet}; then add with --add NAME --out FILE")
    if made.built:
        state = "" if made.built.written else " (unchanged)"
        lines[-1] = f"{made.page} and {made.sheet}; {made.built.path} has {len(made.built.graph.fine)} labels{state}"
    data = {
        "page": str(made.page),
        "sheet": str(made.sheet),
        "unmatched": found.unmatched,
        "clustered": found.sampled,
        "candidates": [{"name": c.name, "crops": c.crops, "images": c.images, "why": c.why} for c in found.candidates],
        "notes": found.notes,
        "out": str(made.built.path) if made.built else None,
    }
    return Result(data, "\n".join(lines))
