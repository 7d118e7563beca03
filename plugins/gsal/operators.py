"""Operators of a scoring: each reads its form, makes one call into gsal_fo.fo, and says what came of it."""

import fiftyone.operators as foo
from fiftyone.operators import types

import gsal_fo.fo as gfo
from gsal_fo.fo.app import forms

from .shared import Operator, answer, sentence, warn

TITLES = {
    "params": "Ranking",
    "detector": "Proposals",
    "diffusion": "Diffusion",
    "concepts": "Concepts",
    "train": "Training",
}
STAGES = {
    "read": "reading the view",
    "train": "training the detector",
    "detect": "finding proposals",
    "difficulty": "measuring difficulty",
    "trial": "trying CLIP on the labeled crops",
    "concepts": "looking at the crops",
    "assign": "assigning concepts",
    "crops": "measuring crops",
    "write": "writing fields",
}


class Score(Operator):
    """Score a view: a worker process with live progress, then fields."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_score",
            label="GSAL: score the unlabeled images",
            description="Rank the images without labels by difficulty and concept rarity",
            icon="science",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        form = types.Object()
        samples, last = ctx.target_view(require_flat=True), forms.last(ctx.dataset)
        found = forms.detections_fields(ctx.dataset)
        form.str(
            "concepts",
            label="Concept graph file",
            description="YAML with your labels, their families and attributes, or the name of a shipped graph",
            default=last.get("concepts"),
            required=True,
            view=types.AutocompleteView(choices=[types.Choice(name, label=name) for name in forms.graphs()]),
        )
        form.str(
            "label_field",
            label="Label field",
            description="Images without a value here are the pool",
            default=last.get("label_field", forms.DEFAULTS["label_field"]),
            view=types.AutocompleteView(choices=[types.Choice(name, label=name) for name in found]),
        )
        form.str(
            "proposals",
            label="Proposals from a field",
            description="Boxes of any detector that the dataset already holds; empty: from a detector",
            view=types.AutocompleteView(choices=[types.Choice(name, label=name) for name in found]),
        )
        form.str(
            "detector",
            label="Detector",
            description='A checkpoint folder, or "grid" for windows; empty: train one on the labeled images first',
        )
        form.enum(
            "assign",
            list(forms.cfg.ASSIGN),
            label="Concepts assigned by",
            description="auto: CLIP or prototypes, as the labeled crops speak for; "
            "prototypes and detector know only concepts that have labels",
            default=last.get("assign", forms.DEFAULTS["assign"]),
        )
        form.str("diffusion", label="Diffusion model", description="embedded, or a folder", default="embedded")
        form.str("clip", label="CLIP model", description="embedded, an open_clip name, or a folder", default="embedded")
        form.str(
            "pretrained", label="CLIP weights", description="open_clip's tag or a checkpoint file; empty: a folder's"
        )
        form.str(
            "encoder", label="Encoder of prototypes", description="Embeds crops; empty: the CLIP model's image tower"
        )
        form.str(
            "labeled_tag", label="Tag of labeled images", description="Empty: those with a value in the label field"
        )
        _constants(ctx, form, "params", "detector", "diffusion", "concepts", "train")
        warn(form, forms.score_problem(samples, {**last, **ctx.params}))
        return types.Property(form, view=types.View(label="Score the unlabeled images"))

    def execute(self, ctx):
        settings = forms.score_settings({**forms.last(ctx.dataset), **ctx.params})
        yield from _progress(ctx, 0, "starting the worker")
        for event in gfo.score_events(ctx.target_view(require_flat=True), **settings):
            if event["event"] == "done":
                for text in _views(ctx):
                    yield from _tell(ctx, text, "warning")
                text = f"{event['scored']} images scored, {event['failed']} failed; next: GSAL: select a batch"
                yield from _tell(ctx, text, "success")
            elif event["event"] == "note":
                yield from _tell(ctx, event["message"], "info")
            elif event["event"] == "progress":
                share = event["done"] / max(1, event["total"])
                label = f"{STAGES.get(event['stage'], event['stage'])}: {event['done']} of {event['total']}"
                yield from _progress(ctx, share, label)
        if not ctx.delegated:
            yield ctx.trigger("reload_dataset")


class Select(Operator):
    """Pick, tag and record the next batch."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_select",
            label="GSAL: select a batch",
            description="Tag the best images of the pool for labeling, with the labels of now",
            icon="checklist",
            dynamic=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        form = types.Object()
        samples = ctx.target_view(require_flat=True)
        budget = forms.default_budget(samples)
        form.int("budget", label="Images to label", default=budget, min=1)
        _constants(ctx, form, "params", known=forms.own_params(ctx.dataset))
        warn(form, forms.select_problem(samples, {"budget": budget, **ctx.params}))
        return types.Property(form, view=types.View(label="Select a batch to label"))

    def execute(self, ctx):
        def run():
            params = forms.named("params", ctx.params) if ctx.params.get("advanced") else None
            budget = ctx.params.get("budget", forms.DEFAULTS["budget"])
            batch = gfo.select(ctx.target_view(require_flat=True), budget, params=params)
            notes = _views(ctx)
            if not ctx.delegated:
                for text in notes:
                    ctx.ops.notify(text, variant="warning")
                ctx.ops.reload_dataset()
                ctx.ops.set_view(view=batch)
            key = gfo.runs.select_keys(ctx.dataset)[-1]
            tag = gfo.runs.load(ctx.dataset, key).config.tag
            return {"tagged": len(batch), "tag": tag}, f"{len(batch)} images tagged {tag}"

        return answer(ctx, run)


class SetupViews(Operator):
    """Sidebar, colors, indexes, saved views."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_setup_views",
            label="GSAL: set up views",
            description="Sidebar group, colors, indexes and saved views for a scored dataset",
            icon="view_quilt",
            risk_level=types.RiskLevel.LOW,
            view_target=False,
        )

    def execute(self, ctx):
        def run():
            notes = []
            names = gfo.setup_views(ctx.dataset, on_event=lambda event: notes.append(event["message"]))
            for text in notes:
                ctx.ops.notify(text, variant="warning")
            ctx.ops.reload_dataset()
            return {"views": names}, f"{len(names)} saved views are ready"

        return answer(ctx, run)


class Visualize(Operator):
    """Maps for the Embeddings panel, and similarity search."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="gsal_visualize",
            label="GSAL: map and similarity",
            description="Lay out images and proposals (UMAP) from the stored embeddings; no model is run",
            icon="scatter_plot",
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        form = types.Object()
        form.enum("method", list(forms.METHODS), label="Layout", default=forms.DEFAULTS["method"])
        limit = forms.DEFAULTS["limit"]
        form.int("limit", label="At most so many images", description="The best ranked", default=limit, min=5)
        return types.Property(form, view=types.View(label="Map and similarity"))

    def execute(self, ctx):
        def run():
            options = {name: ctx.params.get(name, forms.DEFAULTS[name]) for name in ("method", "limit")}
            keys = gfo.visualize(ctx.target_view(require_flat=True), **options)
            if not ctx.delegated:
                ctx.ops.reload_dataset()
                ctx.ops.open_panel("Embeddings", layout="horizontal")
            return {"brain_keys": keys}, f"ready in the Embeddings panel: {', '.join(keys)}"

        return answer(ctx, run)


OPERATORS = (Score, Select, SetupViews, Visualize)


def _constants(ctx, form, *stages, known=None):
    """Every constant of these stages, behind a switch; ``known`` values go before the defaults."""
    form.bool("advanced", label="Show every constant", default=False, view=types.SwitchView())
    if not ctx.params.get("advanced"):
        return
    for stage in stages:
        form.view(f"{stage}__title", types.Header(label=TITLES[stage], divider=True))
        for s in forms.settings(stage):
            what = {"label": s.name, "required": False}
            default = (known or {}).get(s.key, s.default)
            if default is not None:
                what["default"] = default
            if s.choices:
                form.enum(s.key, list(s.choices), **what)
            else:
                {int: form.int, float: form.float, bool: form.bool, str: form.str}[s.kind](s.key, **what)


def _views(ctx):
    """Set up views: in the App nobody should have to ask for them. Returns what is to be said; no reason to fail."""
    notes = []
    try:
        gfo.setup_views(ctx.dataset, on_event=lambda event: notes.append(event["message"]))
    except Exception as error:
        notes.append(f"the views were not set up: {sentence(error)}")
    return notes


def _tell(ctx, text, variant):
    if ctx.delegated:
        ctx.log(text)
    else:
        yield ctx.trigger("notify", {"message": text, "variant": variant})


def _progress(ctx, share, label):
    if ctx.delegated:
        ctx.set_progress(progress=share, label=label)
    else:
        yield ctx.trigger("set_progress", {"progress": share, "label": label})
