"""Building a concept graph file: labels to a draft, by CLIP in a worker or by a language model, to checked YAML."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gsal_fo import embedding, graph_draft, graph_file, graph_llm
from gsal_fo.concepts import ConceptGraph
from gsal_fo.graph_words import Vocabulary

THIN_FILM = Path(__file__).parent / "graphs" / "thin_film.yaml"  # what the embedded CLIP was taught


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
    llm_timeout: float = graph_llm.TIMEOUT_S,
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
        draft = graph_llm.draft(
            labels, url=llm_url, model=llm_model, name=name, about=about, timeout=llm_timeout, note=note
        )
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


def _taught() -> list[str]:
    graph = ConceptGraph.load(THIN_FILM)
    return [p for f in graph.fine for p in [f, *graph.prompts(f)]]
