"""A concept graph drafted by a language model behind any OpenAI-compatible endpoint; every answer is checked as a
graph."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from gsal_fo.concepts.build.draft import Draft
from gsal_fo.concepts.build.endpoint import TIMEOUT_S, Endpoint, LlmError
from gsal_fo.concepts.graph import DEFAULT_TEMPLATES, ConceptGraph, GraphError
from gsal_fo.user_files import one_line, shown, unprintable, words

ATTEMPTS = 4  # answers asked for before the graph is given up

SYSTEM = """You design concept graphs for an object detection dataset. Every label gets exactly one family (its kind,
shared with related labels), a few visual attributes (how it looks in an image; shared between labels of different
families; never carried by all labels), and 1 to 4 short prompts (noun phrases that an image-text model such as CLIP
would match with a crop of it). Use lower_case names with underscores for families and attributes. A name is a label, a
family or an attribute, never two of them. Use every label exactly as given and no other."""

TEXTS = {"type": "array", "items": {"type": "string"}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["templates", "background", "concepts"],
    "properties": {
        "templates": {**TEXTS, "description": "phrases with one {} where the prompt goes, e.g. a photo of a {}"},
        "background": {**TEXTS, "description": "what an image shows where there is no object; may be empty"},
        "concepts": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["label", "family", "attributes", "prompts"],
                "properties": {
                    "label": {"type": "string"},
                    "family": {"type": "string"},
                    "attributes": TEXTS,
                    "prompts": TEXTS,
                },
            },
        },
    },
}


def draft(
    labels: Sequence[str],
    *,
    url: str,
    model: str,
    name: str,
    about: str = "",
    timeout: float = TIMEOUT_S,
    wait: Callable[[float], None] = time.sleep,
    note: Callable[[str], None] = lambda text: None,
) -> Draft:
    """Ask a language model for a graph of ``labels``.

    An answer that is no JSON, breaks the schema or fails the graph's own checks goes back to the model with the reason,
    ``ATTEMPTS`` answers in all. The key comes from the environment (``GSAL_LLM_KEY``) and is sent to ``url`` only.

    Args:
        labels: names.
        url: the endpoint's base, such as ``http://127.0.0.1:11434/v1``; ``/chat/completions`` is added.
        model: the model's name there.
        name: the graph's.
        about: what the images show, in the user's words.
        timeout: seconds for one answer, from the request to its last byte.
        wait: sleeps between requests.
        note: hears why an answer was refused.

    Raises:
        LlmError: wrong key, no answer in time, or no usable graph in the end.
    """
    endpoint = Endpoint(url, timeout=timeout, wait=wait)
    if endpoint.in_the_clear:
        note(f"{endpoint.where} is not encrypted: the key and the labels travel in the clear")
    names = sorted(set(labels))
    asked = f"Labels ({len(names)}), as JSON: {json.dumps(names, ensure_ascii=False)}"
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{asked}\nThe images: {about}" if about else asked},
    ]
    problem = ""
    for _ in range(ATTEMPTS):
        said = endpoint.ask(_request(model, messages))
        try:
            return _read(said, names, name, model)
        except ValueError as error:
            problem = words(error)
            note(f"answer refused: {problem}")
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": f"That cannot be used: {problem}. Answer again with the whole graph."},
        ]
    raise LlmError(
        f"{shown(model)} at {endpoint.where} gave no usable graph in {ATTEMPTS} answers; the last: {problem}"
    )


def _request(model: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "model": model,
        "messages": messages,
        "temperature": 0,
        "seed": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "concept_graph", "strict": True, "schema": SCHEMA},
        },
    }


def _read(said: str, labels: list[str], name: str, model: str) -> Draft:
    """The answer as a checked graph; raises ValueError in words that the model can act on."""
    start = said.find("{")
    if start < 0:
        raise ValueError("the answer holds no JSON object")
    try:
        # Some models wrap the object in prose or a code fence; what is inside is checked all the same.
        got, _ = json.JSONDecoder().raw_decode(said[start:])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer is no valid JSON ({words(error)})") from error
    if not isinstance(got.get("concepts"), list):
        raise ValueError('the answer has no list "concepts"')
    if unknown := sorted(set(got) - set(SCHEMA["properties"])):
        raise ValueError(f"unknown key {shown(unknown[0])}")
    concepts: dict[str, Any] = {}
    for node in got["concepts"]:
        if not isinstance(node, dict) or set(node) != {"label", "family", "attributes", "prompts"}:
            raise ValueError("each concept needs exactly label, family, attributes and prompts")
        if not isinstance(node["label"], str) or node["label"] in concepts:
            raise ValueError(f"label {shown(node['label'])} is given twice or is no text")
        concepts[node["label"]] = {
            "coarse": node["family"],
            "abstract": node["attributes"],
            "prompts": node["prompts"],
        }
    if missing := sorted(set(labels) - set(concepts)):
        raise ValueError(f"these labels are missing: {_some(missing)}")
    if invented := sorted(set(concepts) - set(labels)):
        raise ValueError(f"these are not labels of the dataset: {_some(invented)}")
    values = {
        "name": name,
        "templates": got.get("templates") or list(DEFAULT_TEMPLATES),
        "background": got.get("background") or [],
        "concepts": concepts,
    }
    try:
        graph = ConceptGraph.from_dict(values, source="the graph")
    except GraphError as error:
        raise ValueError(str(error)) from error
    for attribute in graph.abstract:
        if len(labels) > 1 and all(attribute in graph.abstract_of(f) for f in graph.fine):
            raise ValueError(f"attribute {shown(attribute)} is carried by every label and says nothing; leave it out")
    written = graph.to_dict()
    if control := [p for p in _prompts(written) if unprintable(p)]:
        raise ValueError(f"a text holds a line break or control character: {shown(control[0])}")
    return Draft(written, dict.fromkeys(graph.coarse, f"family by {one_line(model)}"))


def _prompts(written: dict[str, Any]) -> list[str]:
    own = [p for node in written["concepts"].values() for p in node["prompts"]]
    return [*written["templates"], *written["background"], *own]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(shown(n).strip('"') for n in names[:5]) + more
