"""FiftyOne's own annotation backends (CVAT, Label Studio, Labelbox): a batch there with pre-labels, labels back."""

from typing import Any

import fiftyone as fo

from gsal_fo.fo import rounds, runs, states
from gsal_fo.fo.dataset import fields, folders, pool
from gsal_fo.fo.exchange import exporting

PRELABELS, LOADED = "gsal_prelabels", "gsal_loaded"
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
        view: the images, usually what `select` returned.
        anno_key: name of FiftyOne's annotation run, new to the dataset.
        backend: "cvat", "labelstudio", "labelbox" or another that FiftyOne is configured with; None is its default.
        prelabels: whether proposals go along for the labeler to correct.
        floor: lowest detection score of a pre-label, in [0, 1].
        run_key: the scoring whose graph names the classes; None is the latest.
        options: passed to the backend (url, credentials, task size, ...).

    Returns:
        ``anno_key``.

    Raises:
        ValueError: a setting, an empty view, no scoring, a key that is taken, or a backend that cannot be used: its
            package or credentials are missing, or its server does not answer.
    """
    exporting.check_settings("coco", "copy", floor)
    dataset = pool.check_samples(view)
    graph = rounds.graph_of(runs.load(dataset, run_key).config)
    if not anno_key.isidentifier():
        raise ValueError(f"anno_key must be a name of letters, digits and _; got {anno_key!r}")
    if anno_key in dataset.list_annotation_runs():
        raise ValueError(f'dataset "{dataset.name}" has an annotation run "{anno_key}" already; choose another name')
    ids = view.values("id")
    if not ids:
        raise ValueError("the view is empty; there is nothing to annotate")
    fields.add_schema(dataset, "select")
    found: dict[str, Any] = dict.fromkeys(ids)
    if prelabels:
        rows = pool.rows_of(dataset, ids, ["gsal_proposals.detections"])
        boxes = {i: exporting.prelabels_of(rows[i][0], floor, set(graph.fine)) for i in ids}
        for i in ids:
            found[i] = fo.Detections(
                detections=[
                    fo.Detection(label=b.label, bounding_box=b.xywh_rel, confidence=b.confidence) for b in boxes[i]
                ]
            )
    with folders.lock(folders.runs_of(dataset.slug), wait=True):
        dataset.set_values(PRELABELS, found, key_field="id")
    schema = {PRELABELS: {"type": "detections", "classes": graph.fine, "attributes": {}}}
    _hand_over(dataset, ids, anno_key, label_schema=schema, backend=backend, **options)
    with folders.lock(folders.runs_of(dataset.slug), wait=True):
        states.sent(dataset, ids)
    return anno_key


def _hand_over(dataset: fo.Dataset, ids: list[str], anno_key: str, *, backend: Any, **options: Any) -> None:
    """FiftyOne's own call. It registers the run before it connects: one that failed would keep its name taken."""
    name = backend if isinstance(backend, str) else "the annotation backend"
    if (backend or fo.annotation_config.default_backend) == "labelstudio":
        options.setdefault("project_name", f"{dataset.name} {anno_key}"[-TITLE:].strip())
    try:
        dataset.select(ids, ordered=True).annotate(anno_key, backend=backend, **options)
    except BaseException as error:  # Ctrl-C at a question for the password is no run, either
        if anno_key in dataset.list_annotation_runs():
            dataset.delete_annotation_run(anno_key)
        if isinstance(error, ImportError):
            raise ValueError(f"{name} needs a package that is missing here; {INSTALL.get(name, error)}") from error
        if isinstance(error, EOFError):
            raise ValueError(f"{name} has no credentials; {_variables(name)} must be set") from error
        if isinstance(error, OSError):  # those of requests are
            raise ValueError(f"{name} cannot be reached or refuses: {error}") from error
        raise


def missing(backend: str) -> str | None:
    """What FiftyOne would ask for at a terminal, as a sentence: an App's server has none, and would wait forever."""
    known = fo.annotation_config.backends.get(backend, {})
    if all(known.get(name) for name in CREDENTIALS.get(backend, ())):
        return None
    return f"FiftyOne has no credentials for {backend}; set {_variables(backend)}, then start the App again"


def _variables(backend: str) -> str:
    return " and ".join(f"FIFTYONE_{backend}_{name}".upper() for name in CREDENTIALS.get(backend, ("credentials",)))


def load(dataset: fo.Dataset, anno_key: str, read: Any) -> Any:
    """What ``read(field)`` makes of a run's labels as they are at the backend now; no field of the dataset changes."""
    try:
        dataset.load_annotations(anno_key, dest_field=LOADED, unexpected="ignore", progress=False)
        return read(LOADED) if dataset.has_sample_field(LOADED) else {}
    finally:
        if dataset.has_sample_field(LOADED):
            dataset.delete_sample_field(LOADED)
