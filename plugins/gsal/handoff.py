"""Operators of the round trip: a batch to the labelers, labels back, a round taken back."""

import fiftyone.operators as foo
from fiftyone.operators import types

import gsal_fo.fo as gfo
from gsal_fo.fo.app import forms
from gsal_fo.fo.console import batch_of

from .shared import Operator, answer, outputs, warn


class Export(Operator):
    """Write the batch for a labeling tool."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_export",
            label="GSAL: export the batch",
            description="Images, pre-labels from the proposals, scores and a manifest, into a folder of the server",
            icon="file_download",
            dynamic=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        form = types.Object()
        samples = ctx.target_view(require_flat=True)
        form.str(
            "out", label="Folder", description="New, empty, or an earlier export, which is replaced", required=True
        )
        form.bool(
            "force",
            label="Replace changed files, too",
            description="Files of an earlier export that were edited since, such as labels drawn in the folder",
            default=False,
        )
        _choose(form, "format", forms.FORMATS, label="Format", default=forms.DEFAULTS["format"])
        _choose(form, "media", forms.MEDIA, label="Images", default=forms.DEFAULTS["media"])
        _round(ctx, form, "Empty: all images of the view")
        _prelabels(ctx, form)
        warn(form, forms.export_problem(samples, ctx.params))
        return types.Property(form, view=types.View(label="Export a batch"))

    def execute(self, ctx):
        def run():
            view = _batch(ctx)
            names = ("format", "media", "prelabels", "floor")
            options = {n: ctx.params.get(n, forms.DEFAULTS[n]) for n in names}
            out = gfo.export(view, ctx.params["out"], force=bool(ctx.params.get("force")), **options)
            if not ctx.delegated:
                ctx.ops.reload_dataset()
            return {"out": str(out), "images": len(view)}, f"{len(view)} images written to {out}"

        return answer(ctx, run)

    def resolve_output(self, ctx):
        return outputs(ctx, images="Images", out="Folder")


class Ingest(Operator):
    """Take labels back."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_ingest",
            label="GSAL: take labels back",
            description="From a labeling tool's file or another field into the label field, never over existing labels",
            icon="file_upload",
            dynamic=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        form = types.Object()
        found = forms.detections_fields(ctx.dataset)
        form.str(
            "labels",
            label="Label file, folder, zip, or labels field",
            description="As the labeling tool exports it; a path on the server",
            required=True,
            view=types.AutocompleteView(choices=[types.Choice(name, label=name) for name in found]),
        )
        kinds = {"auto": "Find out", **forms.FORMATS}
        _choose(form, "format", kinds, label="Format", default="auto")
        label_field = forms.last(ctx.dataset).get("label_field", forms.DEFAULTS["label_field"])
        form.str("label_field", label="Into the field", default=label_field)
        form.str("manifest", label="Manifest of the export", description="Empty: looked for beside the labels")
        form.bool(
            "accept_prelabels",
            label="Unchanged pre-labels are labels",
            description="Somebody has looked at each image",
            default=False,
        )
        form.bool(
            "empty_means_done",
            label="Images without a box hold nothing",
            description="Somebody has finished each image; otherwise only those with a sign of it are taken as empty",
            default=False,
        )
        return types.Property(form, view=types.View(label="Take labels back"))

    def execute(self, ctx):
        def run():
            report = gfo.ingest(
                ctx.dataset,
                ctx.params["labels"],
                format=ctx.params.get("format") or "auto",
                label_field=ctx.params.get("label_field") or forms.DEFAULTS["label_field"],
                manifest=ctx.params.get("manifest") or None,
                accept_prelabels=bool(ctx.params.get("accept_prelabels")),
                empty_means_done=bool(ctx.params.get("empty_means_done")),
            )
            if not ctx.delegated:
                ctx.ops.reload_dataset()
            return {**report.to_dict(), "summary": report.summary()}, report.summary()

        return answer(ctx, run)

    def resolve_output(self, ctx):
        return outputs(ctx, summary="Labels")


class Cancel(Operator):
    """Take a round back."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_cancel",
            label="GSAL: cancel a round",
            description="Its tag and fields go and its images are in the pool again; labels are never touched",
            icon="undo",
            dynamic=True,
            risk_level=types.RiskLevel.MEDIUM,
            view_target=False,
        )

    def resolve_input(self, ctx):
        form = types.Object()
        found = forms.rounds_of(ctx.dataset)
        if found:
            _choose(form, "tag", _titles(found), label="Round", default=next(iter(found)))
        else:
            warn(form, "No round is selected yet; there is nothing to cancel")
        return types.Property(form, view=types.View(label="Cancel a round"))

    def execute(self, ctx):
        def run():
            tag = ctx.params.get("tag")
            done = gfo.cancel(ctx.dataset, round=int(tag.rsplit("_", 1)[1]) if tag else None)
            if not ctx.delegated:
                ctx.ops.reload_dataset()
            return done, f"{done['tag']} cancelled; the labels of {done['labeled']} of its {done['images']} images stay"

        return answer(ctx, run)


class Annotate(Operator):
    """Hand the batch to a backend of FiftyOne's."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_annotate",
            label="GSAL: annotate the batch in CVAT, Label Studio or Labelbox",
            description="With pre-labels from the proposals; the server's FIFTYONE_ variables hold the credentials",
            icon="draw",
            dynamic=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        form = types.Object()
        form.enum("backend", forms.backends(), label="Backend", default=forms.backends()[0])
        form.str("anno_key", label="Name of the annotation run", description="Take labels back by it", required=True)
        warn(form, forms.missing_credentials(ctx.params.get("backend") or forms.backends()[0]))
        form.str("url", label="Address of the server", description="Empty: as FiftyOne is configured")
        _round(ctx, form, "Empty: all images of the view")
        _prelabels(ctx, form)
        return types.Property(form, view=types.View(label="Annotate the batch"))

    def execute(self, ctx):
        def run():
            view, url = _batch(ctx), ctx.params.get("url")
            options = {n: ctx.params.get(n, forms.DEFAULTS[n]) for n in ("prelabels", "floor")}
            options |= {"url": url} if url else {}
            backend = ctx.params.get("backend") or forms.backends()[0]
            key = gfo.annotate(view, ctx.params["anno_key"], backend=backend, **options)
            if not ctx.delegated:
                ctx.ops.reload_dataset()
            return {"anno_key": key, "images": len(view)}, f"{len(view)} images handed to {backend} as {key}"

        return answer(ctx, run)

    def resolve_output(self, ctx):
        return outputs(ctx, images="Images", anno_key="Annotation run")


OPERATORS = (Export, Ingest, Annotate, Cancel)


def _batch(ctx):
    tag = ctx.params.get("tag")
    view = ctx.target_view(require_flat=True)
    return batch_of(view, tag)[1] if tag else view


def _round(ctx, form, description):
    _choose(form, "tag", _titles(forms.rounds_of(ctx.dataset)), label="Round", description=description, required=False)


def _prelabels(ctx, form):
    form.bool("prelabels", label="Proposals as pre-labels", default=forms.DEFAULTS["prelabels"])
    if ctx.params.get("prelabels", forms.DEFAULTS["prelabels"]):
        what = "Lowest detection score of a pre-label"
        form.float("floor", label=what, default=forms.DEFAULTS["floor"], min=0, max=1)


def _titles(found):
    return {tag: f"{tag}: {counts}" for tag, counts in found.items()}


def _choose(form, name, titles, **what):
    """A choice of values, shown in the words a person reads."""
    view = types.Dropdown()
    for value, label in titles.items():
        view.add_choice(value, label=label)
    form.enum(name, list(titles), view=view, **what)
