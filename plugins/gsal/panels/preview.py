"""Panel: a batch before it is tagged, ranked again from stored statistics at each change of a setting."""

import dataclasses

import fiftyone.operators as foo
from fiftyone.operators import types

from gsal_fo import config as cfg
from gsal_fo.acquisition import picking
from gsal_fo.acquisition import preview as pure
from gsal_fo.fo import runs
from gsal_fo.fo.app import forms
from gsal_fo.fo.app import preview as previewing
from gsal_fo.pages import plots

from ..shared import sentence
from .common import Doors, Panel, button, chosen_run, page, put, row, run_picker, share

HELP = """The batch that **Tag this batch** would make, before anything is tagged: nothing is written until then, and no
model runs. Compare its boxes with those of the labeled set and of the pool, its cost with your time, and its images
with what entropy or chance would pick. The grid shows the picks, best first."""
EMPTY = """### Nothing to preview yet
A batch is picked from scored images. **Score** this dataset first."""
LEVELS = ("fine", "coarse", "abstract")
UNITS = {"images": "Images", "boxes": "Boxes", "minutes": "Minutes"}
PLACES = {  # where the form keeps each setting
    **dict.fromkeys(("strategy", "amount", "unit", "batch"), "form.a"),
    **dict.fromkeys(("lam", "eta"), "form.b"),
    **dict.fromkeys(("per_image", "per_box", "alike"), "form.c"),
}


class BatchPreview(Doors, Panel):
    """What a batch would be, and the button that makes it."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="gsal_preview",
            label="Batch preview",
            icon="playlist_add_check",
            help_markdown=HELP,
            category=foo.Categories.CURATE,
        )

    def on_load(self, ctx):
        ctx.panel.state.level = ctx.panel.state.level or "fine"
        self._read(ctx)

    def on_change_dataset(self, ctx):
        ctx.panel.state.form = {}
        self._read(ctx)

    def refresh(self, ctx):
        self._read(ctx)

    def on_run(self, ctx):
        """Another scoring: its own constants are the new start."""
        ctx.panel.state.run = ctx.params.get("value")
        ctx.panel.state.form = {}
        self._read(ctx)

    def on_setting(self, ctx):
        """A setting has changed; the event names its path."""
        path, value = str(ctx.params.get("path", "")), ctx.params.get("value")
        name, known = path.split(".")[-1], ctx.panel.state.settings or {}
        if name not in PLACES or (name in known and known[name] == value):
            return  # a form that opens reports every default as a change
        ctx.panel.set_state(path, value)
        self._read(ctx)

    def on_level(self, ctx):
        """Labels, families or attributes in the plot."""
        ctx.panel.state.level = ctx.params.get("value") or "fine"
        self._read(ctx)

    def run_greedy(self, ctx):
        """Rank a large pool greedily, now that it was asked for."""
        self._read(ctx, patient=True)

    def show_repeats(self, ctx):
        """Each near-duplicate beside the pick that it repeats."""
        shown = previewing.preview(ctx.dataset, self._asked(ctx), run_key=chosen_run(ctx))
        ids = [shown.ids[k] for place, earlier, _ in shown.repeats or [] for k in (earlier, place)]
        ctx.ops.set_view(view=previewing.picks_view(ctx.dataset, list(dict.fromkeys(ids))))

    def show_picks(self, ctx):
        """The picks in the grid."""
        shown = previewing.preview(ctx.dataset, self._asked(ctx), run_key=chosen_run(ctx))
        ctx.ops.set_view(view=previewing.picks_view(ctx.dataset, shown.ids))

    def ask_tag(self, ctx):
        """The button was pressed: it is disabled first, at once, then ``tag`` runs as an event of its own."""
        ctx.panel.state.tagging = True
        ctx.prompt(self.method_to_uri("tag"), skip_prompt=True)

    def tag(self, ctx):
        """Select exactly what is shown."""
        state = ctx.panel.state
        state.tagging = False
        try:
            batch, name = previewing.tag(ctx.dataset, self._asked(ctx), run_key=chosen_run(ctx), batch=state.batch)
        except previewing.Changed:
            self._read(ctx)
            raise
        state.tagged = f"**{len(batch)} images tagged `{name}`.** Next: export them for your labeling tool."
        ctx.ops.reload_dataset()
        ctx.ops.set_view(view=batch)
        ctx.ops.notify(f"{len(batch)} images tagged {name}", variant="success")
        self._read(ctx, grid=False)

    def render(self, ctx):
        panel, state = types.Object(), ctx.panel.state
        if state.unscored:
            panel.md(EMPTY, name="empty")
            self.doors(panel, "score")
            return page(panel)
        run_picker(panel, state.keys or [], self.on_run)
        if state.settings:
            self._form(panel, ctx)
        if state.problem:
            panel.view("problem", types.AlertView(label=state.problem, severity="warning"))
        elif state.waiting:
            panel.md("A greedy batch of this size ranks the pool again after each pick: some seconds.", name="waiting")
            panel.btn(
                "run_greedy", label="Rank greedily", icon="play_arrow", on_click=self.run_greedy, variant="outlined"
            )
        elif state.facts:
            self._result(panel, ctx)
        if state.tagged:
            panel.md(state.tagged, name="tagged")
            self.doors(panel, "export", "annotate", "ingest")
        return page(panel)

    def _form(self, panel, ctx):
        """The settings, in two rows; each change ranks anew."""
        now, on = ctx.panel.state.settings, {"on_change": self.on_setting}
        form = panel.v_stack("form", gap=1, align_x="stretch")
        top = row(form, "a", align="bottom")
        units, kinds, batches = (types.DropdownView(componentsProps=share()) for _ in range(3))
        typed = types.FieldView(componentsProps=share())
        top.enum("strategy", forms.CHOICES["strategy"], label="Strategy", default=now["strategy"], view=kinds, **on)
        top.float("amount", label="Budget", default=now["amount"], min=0, view=typed, **on)
        for value, label in UNITS.items():
            units.add_choice(value, label=label)
        top.enum("unit", list(UNITS), label="of", default=now["unit"], view=units, **on)
        top.enum("batch", cfg.BATCH, label="Batch", default=now["batch"], view=batches, **on)
        middle = form.grid("b", gap=0, columns=2, orientation="vertical", align_x="stretch")
        slider = types.SliderView(label_position="top", value_label_display="auto", value_precision=2)
        middle.float(
            "lam", label=f"λ, weight of rarity: {now['lam']:.2f}", default=now["lam"], min=0, max=3, view=slider, **on
        )
        middle.float(
            "eta",
            label=f"η, weight of proposals: {now['eta']:.2f}",
            default=now["eta"],
            min=0,
            max=1,
            view=slider,
            **on,
        )
        costs = row(form, "c", align="bottom")
        for name, label, most in (
            ("per_image", "Seconds per image", None),
            ("per_box", "Seconds per box", None),
            ("alike", "Near-duplicate from cosine", 1),
        ):
            wide = types.FieldView(componentsProps=share(130))
            costs.float(name, label=label, default=now[name], min=0, max=most, view=wide, **on)

    def _result(self, panel, ctx):
        """What the batch is, and the buttons."""
        state = ctx.panel.state
        buttons, plain = row(panel, "buttons"), {"variant": "outlined"}
        label = f"Tagging ({state.count})" if state.tagging else f"Tag this batch ({state.count})"
        button(buttons, "tag", label=label, on_click=self.ask_tag, variant="contained", disabled=bool(state.tagging))
        button(buttons, "show_picks", label="Show picks", on_click=self.show_picks, **plain)
        if state.repeats:
            label = f"Show near-duplicates ({state.repeats})"
            button(buttons, "show_repeats", label=label, on_click=self.show_repeats, **plain)
        panel.md(state.facts, name="facts")
        levels = types.TabsView()
        for level in LEVELS:
            levels.add_choice(level, label={"fine": "Labels", "coarse": "Families", "abstract": "Attributes"}[level])
        panel.enum("level", list(LEVELS), default=state.level, view=levels, on_change=self.on_level)
        panel.plot("mix", layout=plots.shares_layout(state.bars or 1), config={"displayModeBar": False})
        panel.md(state.why or "", name="why")

    def _asked(self, ctx):
        """The settings as the library's own objects, which refuse what cannot be used."""
        now = self._settings(ctx)
        params = previewing.params_of(ctx.dataset, chosen_run(ctx))
        changed = {name: now[name] for name in ("strategy", "lam", "eta", "batch")}
        return previewing.Asked(
            params=dataclasses.replace(params, **changed),
            budget=picking.Budget(now["amount"], now["unit"]),
            costs=picking.Costs(now["per_image"], now["per_box"]),
            alike=now["alike"],
        )

    def _settings(self, ctx):
        """What the form shows: a person's values over the scoring's constants."""
        params, costs = previewing.params_of(ctx.dataset, chosen_run(ctx)), picking.Costs()
        start = {
            "strategy": params.strategy,
            "unit": "images",
            "amount": forms.default_budget(ctx.dataset),
            "lam": params.lam,
            "eta": params.eta,
            "batch": params.batch,
            "per_image": costs.per_image,
            "per_box": costs.per_box,
            "alike": pure.ALIKE,
        }
        unset = {}
        for name, place in PLACES.items():
            value = ctx.panel.get_state(f"{place}.{name}")
            if value is None:
                unset[f"{place}.{name}"] = start[name]
            else:
                start[name] = value
        if unset:  # else the App sends each default back as a change, one event for every field
            ctx.panel.set_state(unset)
        return start

    def _read(self, ctx, patient=False, grid=True):
        """Rank anew and say what came of it."""
        state = ctx.panel.state
        state.keys, state.tagging = runs.score_keys(ctx.dataset), False
        state.unscored = not state.keys
        if state.unscored:
            return
        try:
            state.settings = self._settings(ctx)
            asked, key = self._asked(ctx), chosen_run(ctx)
            state.waiting = not patient and previewing.heavy(ctx.dataset, asked, key)
            if state.waiting:
                return
            shown = previewing.preview(ctx.dataset, asked, run_key=key)
        except Exception as error:
            state.problem, state.facts = sentence(error), None
            return
        rows = [r for r in shown.mix if r["level"] == state.level]
        state.problem, state.batch = None, shown.batch
        state.count, state.bars = len(shown.ids), len(rows)
        state.repeats = len(shown.repeats or [])
        state.facts, state.why = facts(shown), why(shown)
        put(ctx, "mix", plots.shares(rows))
        if grid:
            state.tagged = None
            ctx.ops.set_view(view=previewing.picks_view(ctx.dataset, shown.ids))


def facts(shown):
    """The batch in numbers, as a small table."""
    entropy = shown.overlap["entropy"]
    n = len(shown.ids)
    alike = "no embeddings stored" if shown.repeats is None else f"{len(shown.repeats)} of {n}"
    lines = [
        f"| **Images** | {n} of {shown.pool} in the pool |",
        "|:--|:--|",
        f"| **Expected boxes** | {shown.boxes:.0f} |",
        f"| **Expected time** | {shown.minutes:.0f} min |",
        f"| **Near-duplicates of an earlier pick** | {alike} |",
        f"| **Also picked by entropy** | {'needs a trained detector' if entropy is None else f'{entropy} of {n}'} |",
        f"| **Also picked at random** | {shown.overlap['random']} of {n} (on average {shown.chance:.1f}) |",
    ]
    if shown.missing:
        lines.append(f"| **Left out: file is gone** | {len(shown.missing)} |")
    return "\n".join(lines)


def why(shown):
    """The first picks' sentences."""
    return "**Why the first ones**\n\n" + "\n".join(f"1. {text}" for text in shown.sentences[:5])
