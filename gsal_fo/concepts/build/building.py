"""Building a concept graph file: labels to a draft, by CLIP in a worker or by a language model, and candidates of a
pool, to checked YAML."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.concepts.build import candidates as graph_candidates
from gsal_fo.concepts.build import draft as graph_draft
from gsal_fo.concepts.build import file as graph_file
from gsal_fo.concepts.build import llm
from gsal_fo.concepts.build.vocabulary import Vocabulary, spoken
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.pages import candidates_page, files
from gsal_fo.run_folder import shards
from gsal_fo.user_files import MOST_YAML, read_text
from gsal_fo.worker import embedding

THIN_FILM = Path(__file__).parents[2] / "graphs" / "thin_film.yaml"  # what the embedded CLIP was taught
UNSORTED = "unsorted"  # the family of a candidate, until a person gives it one


@dataclass
class Built:
    """A graph file that was made; ``written`` is False where the file held the same text already."""

    path: Path
    graph: ConceptGraph
    written: bool
    notes: list[str]


def from_labels(
    labels: Sequence[str],
    out: Path,
    *,
    force: bool = False,
    name: str | None = None,
    clip: str = "embedded",
    pretrained: str | None = None,
    vocabulary: Path | None = None,
    families: int | None = None,
    attributes: int = 3,
    llm_url: str | None = None,
    llm_model: str | None = None,
    llm_timeout: float = llm.TIMEOUT_S,
    about: str = "",
    on_note: Callable[[str], None] = lambda text: None,
    on_event: embedding.OnEvent | None = None,
) -> Built:
    """Draft a graph of ``labels`` and write it to ``out``: by a language model where ``llm_url`` names one, else by
    CLIP's text embeddings.

    Raises:
        ValueError: settings, labels or file cannot be used, or the model gave no usable graph; nothing was written.
        WorkerError: the CLIP model cannot be loaded.
    """
    labels = graph_file.checked_labels(labels, "the labels")
    if out.exists() and not force and not out.is_file():
        raise ValueError(f"{out} is no file; choose another name for the graph")
    name, notes = name or out.stem, []

    def note(text: str) -> None:
        notes.append(text)
        on_note(text)

    if llm_url or llm_model:
        if not (llm_url and llm_model):
            raise ValueError("a language model needs both --llm-url and --llm-model")
        if out.exists() and not force:  # its answer would be paid for and then be refused
            raise ValueError(f"{out} exists and may hold edits; choose another file, or overwrite it with --force")
        draft = llm.draft(labels, url=llm_url, model=llm_model, name=name, about=about, timeout=llm_timeout, note=note)
        source = f"a draft by the language model {graph_file.one_line(llm_model)}"
    else:
        draft = graph_draft.draft(
            labels,
            lambda texts: embedding.embed(texts, clip=clip, pretrained=pretrained, on_event=on_event)[0],
            name=name,
            vocabulary=Vocabulary.load(vocabulary),
            families=families,
            attributes=attributes,
            taught=_taught() if clip == "embedded" else (),
        )
        source = f"a draft by the texts of CLIP model {graph_file.one_line(clip)}"
        for text in draft.notes:
            note(text)
    header = [f"{len(labels)} labels; {source}. Edit families, attributes and prompts; then `gsal concepts check`."]
    header += [f"Doubt: {graph_file.one_line(text)}" for text in draft.notes]
    text = graph_file.render(draft.values, header=header, comments=draft.comments)
    written = graph_file.write(text, out, force=force)
    return Built(out, graph_file.check(text, out), written, notes)


@dataclass
class Proposed:
    """What a pool showed: candidates, the page and sheet to look at, and the graph file where some were added."""

    found: graph_candidates.Found
    page: Path
    sheet: Path
    built: Built | None


def from_pool(
    run: Path,
    page: Path,
    *,
    add: Sequence[str] = (),
    out: Path | None = None,
    base: Path | None = None,
    force: bool = False,
    most: int = 12,
    clip: str = "embedded",
    pretrained: str | None = None,
    vocabulary: Path | None = None,
    on_event: embedding.OnEvent | None = None,
) -> Proposed:
    """Cluster a scoring's unmatched crops into candidate concepts and show them; add some to a graph on request.

    Args:
        run: run folder of a scoring.
        page: HTML file to write; the contact sheet stands beside it (.png).
        add: candidates to add to the graph, each ``name`` or ``name=new name``; "all" adds all. Several with one new
            name become one concept.
        out: the graph file with them.
        base: the graph file that they are added to; every line of it is kept. None is the run's own copy.
        force: overwrite ``out`` and ``page``.
        most: candidates at most.
        clip, pretrained: the CLIP that names candidates, and embeds crops where the run has not.
        vocabulary: the words for names.
        on_event: receives the worker's events.

    Raises:
        ValueError: no run folder, an unknown candidate, or a file that cannot be used.
    """
    if bool(add) != (out is not None):
        raise ValueError("candidates are added with both --add NAME and --out FILE (the new graph file)")
    sheet = page.with_suffix(".png")
    if sheet == page:
        raise ValueError(
            f"{page} is to be an HTML page, and the picture beside it gets .png; let its name end in .html"
        )
    files.check_new(page, sheet, force=force)  # refused here, not after the work
    config = shards.run_facts(run, shards.CONFIG)
    if config.get("kind") != "score":
        raise ValueError(f"{run} is no scoring; give the run folder of gsal score")
    pad = float(config["config"]["concepts"]["pad"])
    graph = ConceptGraph.load(run / "concepts.yaml")

    def embed(texts: Sequence[str], crops: Sequence[tuple[str, Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
        return embedding.embed(texts, crops, clip=clip, pretrained=pretrained, pad=pad, on_event=on_event)

    found = graph_candidates.find(run, graph, most=most, embed=lambda crops: embed([], crops)[1])
    taught = _taught() if clip == "embedded" else ()
    graph_candidates.name_them(found, graph, Vocabulary.load(vocabulary), embed, taught=taught)
    candidates_page.write(found, page, sheet, graph=graph.name, run=str(run), force=force)
    if out is None:
        return Proposed(found, page, sheet, None)
    source = base or run / "concepts.yaml"
    nodes = _chosen(found, add, run.name)
    taken = ConceptGraph.load(source).graph
    if again := sorted(set(nodes) & set(taken)):
        raise ValueError(f'"{again[0]}" is a name of the graph already; give another with --add NAME=NEW')
    text = read_text(source, "the concept graph", most=MOST_YAML)
    text = graph_file.append(text, nodes, source=str(source))
    written = graph_file.write(text, out, force=force)
    return Proposed(found, page, sheet, Built(out, graph_file.check(text, out), written, found.notes))


def _chosen(found: graph_candidates.Found, add: Sequence[str], run: str) -> dict[str, tuple[dict[str, Any], str]]:
    """Label -> (node, comment) of the candidates to add."""
    by_name = {c.name: c for c in found.candidates}
    wanted = list(by_name) if list(add) == ["all"] else list(add)
    out: dict[str, tuple[dict[str, Any], str]] = {}
    for item in wanted:
        name, _, new = item.partition("=")
        if name not in by_name:
            raise ValueError(f'there is no candidate "{name}"; there are {", ".join(by_name) or "none"}')
        label = graph_file.checked_labels([new or name], "--add")[0]
        comment = (
            f"Candidate concept {name} of {run}: {candidates_page.facts(by_name[name])}. Check name, family, prompts."
        )
        if label in out:
            comment = f"{out[label][1]} {comment}"
        out[label] = ({"coarse": UNSORTED, "abstract": [], "prompts": [spoken(label)]}, comment)
    return out


def _taught() -> list[str]:
    graph = ConceptGraph.load(THIN_FILM)
    return [p for f in graph.fine for p in [f, *graph.prompts(f)]]
