"""Panel in the sample's own view: why this image has its rank."""

import fiftyone.operators as foo
from fiftyone.operators import types

from gsal_fo.fo import runs
from gsal_fo.fo.app import why as whys
from gsal_fo.pages import crop_sheet, plots

from ..shared import sentence
from .common import Panel, page, put

HELP = """The ranking that chose this image, taken apart: how its score adds up, which concepts were rare with how many
labels, and each proposal's crop above the same piece of the error map (yellow: where the diffusion model struggles).
Click into the panel once, and the arrow keys go from image to image."""
EMPTY = """### Not scored yet
Run **GSAL: score the unlabeled images** from the operator browser (the key **`** opens it)."""
LEVELS = {"fine": "label", "coarse": "family", "abstract": "attribute"}


class WhyThisImage(Panel):
    """The open sample, explained; follows the arrow keys."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="gsal_why",
            label="Why this image",
            icon="help_center",
            help_markdown=HELP,
            surfaces="modal",
            category=foo.Categories.ANALYZE,
        )

    def on_load(self, ctx):
        self._read(ctx)

    def on_change_current_sample(self, ctx):
        self._read(ctx)

    def on_change_dataset(self, ctx):
        self._read(ctx)

    def render(self, ctx):
        panel, state = types.Object(), ctx.panel.state
        if state.problem:
            panel.md(state.problem, name="problem")
            return page(panel)
        panel.md(state.sentence or "", name="sentence")
        if state.waterfall:
            panel.plot("terms", layout=state.waterfall, config={"displayModeBar": False})
        if state.sheet:
            panel.plot("proposals", layout=state.sheet, config={"displayModeBar": False, "staticPlot": True})
        elif state.unreadable:
            panel.view("unreadable", types.AlertView(label=state.unreadable, severity="warning"))
        if state.indicators:
            panel.md(state.indicators, name="indicators")
        return page(panel)

    def _read(self, ctx):
        """Explain the sample that is open now."""
        state = ctx.panel.state
        state.problem = state.unreadable = state.sheet = state.waterfall = None
        if not runs.score_keys(ctx.dataset):
            state.problem = EMPTY
            return
        try:
            shown = whys.why(ctx.dataset, _sample(ctx))
        except Exception as error:
            state.problem = f"### Nothing to explain\n{sentence(error)}"
            return
        where = f"Round {shown.round}, " if shown.round else ""
        state.sentence = f"#### {headline(shown.facts)}\n{shown.sentence}\n\n*{where}{shown.key}*"
        state.indicators = indicators(shown.facts)
        if shown.terms:
            put(ctx, "terms", plots.waterfall(shown.terms))
            state.waterfall = plots.waterfall_layout(shown.terms)
        try:
            traces, layout = crop_sheet.figure(whys.pictures(shown), [caption(p) for p in shown.proposals])
        except Exception as error:
            state.unreadable = sentence(error)
            return
        put(ctx, "proposals", traces)
        state.sheet = {**plots.PLAIN, **layout}


def _sample(ctx):
    """The id of the open image; of a patch, that of its image."""
    sample_id = ctx.current_sample
    if not sample_id:
        raise ValueError("open an image to see why it has its rank")
    view = ctx.view
    if view is not None and view._is_patches:
        return view.select(sample_id).values("sample_id")[0]
    return sample_id


def headline(facts):
    """Rank and path in one line."""
    path = " → ".join(filter(None, [facts.get("fine"), facts.get("coarse"), ", ".join(facts.get("abstract") or [])]))
    rank = f"Rank {facts['rank']} of {facts['ranked']}" if facts["rank"] else "Not ranked"
    return f"{rank}: {path}" if path else rank


def indicators(facts):
    """Which concepts of the path were rare, with counts and thresholds, as a table."""
    if not facts.get("indicators"):
        return None
    graded = facts["rarity_rule"] == "graded"
    lines = [
        f"| Concept | Level | Labeled | {'Most of its level' if graded else 'Rare at <='} | Rare |",
        "|:--|:--|--:|--:|:--|",
    ]
    for i in facts["indicators"]:
        rare = "not used" if not i["used"] else f"{i['value']:.2f}" if graded else "**yes**" if i["fired"] else "no"
        lines.append(f"| {i['node']} | {LEVELS[i['level']]} | {i['count']} | {i['threshold']} | {rare} |")
    return "\n".join(lines)


def caption(proposal):
    """What a crop shows, in three short lines."""
    name = proposal.concept.replace("&", "&amp;").replace("<", "&lt;")
    hard = "no difficulty" if proposal.difficulty_sd is None else f"{proposal.difficulty_sd:+.1f} sd hard"
    title = f"<b>{proposal.number}: {name}</b>" if proposal.decisive else f"{proposal.number}: {name}"
    value = "" if proposal.value is None else f"value {proposal.value:.2f}{', decisive' if proposal.decisive else ''}"
    return f"{title}<br>{hard}, bonus {proposal.bonus:.2g}<br>{value}"
