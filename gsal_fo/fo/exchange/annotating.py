"""FiftyOne's own annotation backends (CVAT, Label Studio, Labelbox): a batch there with pre-labels, labels back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.fo import journal, owners, rounds, runs, steps
from gsal_fo.fo.dataset import fields, filtered, pool, records, slices
from gsal_fo.fo.exchange import downloaded, exporting, handoffs
from gsal_fo.fo.exchange.formats import Box
from gsal_fo.fo.exchange.reading import Reading
from gsal_fo.images import ImageError, upright_size

RESERVED = "annotate__{}"  # among the run keys that are taken
PRELABELS = "gsal_prelabels"
BOXES = ("detections", "detection", "instances", "instance")  # types of FiftyOne's label schemas that have boxes
CREDENTIALS = {"cvat": ("username", "password"), "labelbox": ("api_key",), "labelstudio": ("api_key",)}
TITLE = 39  # letters of a project's title: Label Studio takes 50, and FiftyOne adds 11 to one that is there already
INSTALL = {
    "labelbox": "pip install labelbox",
    "labelstudio": 'pip install "gsal-fo[labelstudio]"',
}


def annotate(
    view: Any,
    anno_key: str,
    *,
    backend: Any = None,
    prelabels: bool = True,
    floor: float = exporting.FLOOR,
    run_key: str | None = None,
    **options: Any,
) -> str:
    """Hand a batch to one of FiftyOne's annotation backends; its images of a round count as sent from then on.

    The proposals go along in ``gsal_prelabels``, the classes are all fine nodes of the scoring's graph. Take the labels
    back with ``ingest(dataset, anno_key)``.

    Args:
        view: the images, usually what `select` returned; where it filters the proposals, those that it shows go along.
        anno_key: name of FiftyOne's annotation run, new to the dataset.
        backend: "cvat", "labelstudio", "labelbox" or another that FiftyOne is configured with; None is its default.
        prelabels: whether proposals go along for the labeler to correct.
        floor: lowest detection score of a pre-label, in [0, 1].
        run_key: the scoring whose graph names the classes; None is the latest of these images.
        options: passed to the backend (url, credentials, task size, ...).

    Returns:
        ``anno_key``.

    Raises:
        ValueError: a setting, an empty view, no scoring, a key that is taken, or a backend that cannot be used: its
            package or credentials are missing, or its server does not answer.
    """
    exporting.check_settings("coco", "copy", floor)
    dataset, view = pool.check_images(view)
    graph = rounds.graph_of(runs.scoring_of(view, run_key).config)
    if not anno_key.isidentifier():
        raise ValueError(f"anno_key must be a name of letters, digits and _; got {anno_key!r}")
    ids = filtered.ids_of(view)
    rows = pool.rows_of(filtered.source_of(view, "gsal_proposals"), ids, ["filepath", "gsal_proposals.detections"])
    classes = set(graph.fine) if prelabels else set()
    boxes = {i: exporting.prelabels_of(rows[i][1], floor, classes) for i in ids}
    sent = {
        i: handoffs.Sent([(b.label, b.xywh_rel) for b in boxes[i]], _size(Path(rows[i][0]), known=bool(boxes[i])))
        for i in ids
    }
    asked = {"anno_key": anno_key, "backend": str(backend), "view": rounds.view_of(view), "options": options}
    request = journal.request_of(command="annotate", prelabels=prelabels, floor=floor, run_key=run_key, **asked)
    with journal.hold(dataset, "annotate") as held:
        if held.result_of(request) is not None:
            return anno_key
        if kept := _received(held, anno_key):  # all but the marks of the images was done
            _finish(held, kept, ids, anno_key, request)
            return anno_key
        reserved = held.reserve(RESERVED.format(anno_key))  # nobody else takes it for one that was cut short
        kept = _prepare(dataset, anno_key, boxes if prelabels else dict.fromkeys(ids), sent)
    schema = {PRELABELS: {"type": "detections", "classes": graph.fine, "attributes": {}}}
    with journal.kept(reserved):
        try:
            _hand_over(dataset, ids, anno_key, label_schema=schema, backend=backend, **options)
        except BaseException:
            with journal.hold(dataset, "annotate"):
                records.remove(dataset, kept)
            raise
        with journal.hold(dataset, "annotate") as held:
            held.ends_with(reserved)
            _finish(held, kept, ids, anno_key, request)
    return anno_key


def _finish(held: journal.Hold, kept: str, ids: list[str], anno_key: str, request: str) -> None:
    """The images of a round count as sent; ``kept``: key of the hand-off's record."""
    about = {"to": f"annotation run {anno_key}"}
    todo = [steps.amend(kept, complete=True), steps.sent(ids), steps.sent_in_ledger(ids, held.token, about)]
    held.apply(request, todo, {"anno_key": anno_key})


def _received(held: journal.Hold, anno_key: str) -> str | None:
    """Make sure that the annotation run's name is free; what an `annotate` that was killed has left of it goes.

    Returns:
        The key of the hand-off's record, where that `annotate` had handed everything over; else None.

    Raises:
        ValueError: the name is another run's.
    """
    dataset, other = held.dataset, held.running.get(RESERVED.format(anno_key))
    if other is not None:
        raise ValueError(f'"{anno_key}" is being handed over by {owners.describe(other)}; choose another name')
    cut = handoffs.incomplete(dataset, anno_key)
    there = anno_key in dataset.list_annotation_runs()
    if there and not cut:
        raise ValueError(f'dataset "{dataset.name}" has an annotation run "{anno_key}" already; choose another name')
    if there and dataset._doc.annotation_runs[anno_key].results:
        return cut[-1]
    if there:
        dataset.delete_annotation_run(anno_key)
    for key in cut:
        records.remove(dataset, key)
    for key, document in records.broken(dataset)[1]:  # killed before the dataset referred to it
        if key.startswith(runs.HANDOFF):
            records.remove_lost(dataset, document)
    return None


def _prepare(
    dataset: fo.Dataset, anno_key: str, boxes: Mapping[str, list[Box] | None], sent: Mapping[str, handoffs.Sent]
) -> str:
    """What FiftyOne will upload, in its field, and a record of it, which is there before anybody can answer; the
    record's key."""
    fields.add_schema(dataset, "select")
    found = {
        i: some
        if some is None
        else fo.Detections(
            detections=[fo.Detection(label=b.label, bounding_box=b.xywh_rel, confidence=b.confidence) for b in some]
        )
        for i, some in boxes.items()
    }
    dataset.set_values(PRELABELS, found, key_field="id")
    made = handoffs.new(dataset, handoffs.ANNOTATE, anno_key, sent, complete=False)
    records.write(dataset, made)
    return str(made["key"])


def _size(file: Path, *, known: bool) -> tuple[int, int] | None:
    """Pixels of an image that has pre-labels: a backend that keeps whole ones must not seem to have moved them."""
    try:
        return upright_size(file) if known else None
    except ImageError:
        return None


def _hand_over(dataset: fo.Dataset, ids: list[str], anno_key: str, *, backend: Any, **options: Any) -> None:
    """FiftyOne's own call. It registers the run before it connects: one that failed would keep its name taken."""
    if (backend or fo.annotation_config.default_backend) == "labelstudio":
        options.setdefault("project_name", f"{dataset.name} {anno_key}"[-TITLE:].strip())
    try:
        with _explained(backend if isinstance(backend, str) else "the annotation backend"):
            slices.flat(dataset).select(ids, ordered=True).annotate(anno_key, backend=backend, **options)
    except BaseException:  # Ctrl-C at a question for the password is no run, either
        if anno_key in dataset.list_annotation_runs():
            dataset.delete_annotation_run(anno_key)
        raise


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what a backend raises where it cannot be used into a sentence."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{name} needs a package that is missing here; {INSTALL.get(name, error)}") from error
    except EOFError as error:
        raise ValueError(f"{name} has no credentials; {_variables(name)} must be set") from error
    except OSError as error:  # those of requests are
        raise ValueError(f"{name} cannot be reached or refuses: {error}") from error


def missing(backend: str) -> str | None:
    """What FiftyOne would ask for at a terminal, as a sentence: an App's server has none, and would wait forever."""
    known = fo.annotation_config.backends.get(backend, {})
    if all(known.get(name) for name in CREDENTIALS.get(backend, ())):
        return None
    return f"FiftyOne has no credentials for {backend}; set {_variables(backend)}, then start the App again"


def _variables(backend: str) -> str:
    return " and ".join(f"FIFTYONE_{backend}_{name}".upper() for name in CREDENTIALS.get(backend, ("credentials",)))


def load(samples: Any, anno_key: str) -> Reading:
    """A run's labels of a dataset's or view's images, as they are at the backend now; nothing is written.

    FiftyOne's ``load_annotations`` would merge them into a field, by the labels that it holds now: those may be of
    another run, or gone with a cancelled round.

    Raises:
        ValueError: the backend cannot be used, or the run is not of one field of boxes.
    """
    dataset, samples = pool.check_images(samples)
    config = dataset.get_annotation_info(anno_key).config
    kept = [name for name, info in (config.label_schema or {}).items() if info.get("type") in BOXES]
    if len(kept) != 1:
        raise ValueError(
            f'annotation run "{anno_key}" has {len(kept)} fields of boxes ({", ".join(config.label_schema or {})}), '
            f"and labels are taken from one; load it with dataset.load_annotations and name the field to take"
        )
    with _explained(str(getattr(config, "name", None) or config.method)):
        results = dataset.load_annotation_results(anno_key)
        if results is None:
            raise ValueError(f'annotation run "{anno_key}" was cut short before anything was sent; annotate again')
        given = results.backend.download_annotations(results).get(kept[0], {})
    return downloaded.reading(samples, given)


def sent(dataset: fo.Dataset, anno_key: str, ids: list[str]) -> dict[str, list[handoffs.Sent]]:
    """What went along with the images of an annotation run."""
    kept = handoffs.of_annotation(dataset, anno_key)
    if kept is not None:
        return kept
    out = handoffs.ever(dataset, ids)  # renamed since, or of a version that kept no record
    if dataset.has_sample_field(PRELABELS):
        each = f"{PRELABELS}.detections"
        for i, (names, boxes) in pool.rows_of(dataset, ids, [f"{each}.label", f"{each}.bounding_box"]).items():
            if names is not None:
                out[i].append(handoffs.Sent(list(zip(names, boxes, strict=True)), None))
    return out
