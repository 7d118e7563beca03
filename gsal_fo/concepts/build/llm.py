"""A concept graph drafted by a language model behind any OpenAI-compatible endpoint; every answer is checked as a
graph."""

import ipaddress
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from gsal_fo.concepts.graph import DEFAULT_TEMPLATES, ConceptGraph, GraphError
from gsal_fo.concepts.build.draft import Draft
from gsal_fo.concepts.build.file import one_line

KEYS = ("GSAL_LLM_KEY", "OPENAI_API_KEY")  # environment variables that may hold the key, the first that is set
ATTEMPTS = 4  # answers asked for before the graph is given up
WAIT_S = (1.0, 4.0, 10.0)  # before another request after 429 or 5xx; a server's Retry-After goes first
LONGEST_WAIT_S = 60.0
TIMEOUT_S = 120.0
MOST_BYTES = 2_000_000  # of an answer

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


class LlmError(ValueError):
    """The endpoint gave no usable graph; the message says in one sentence why and what to do."""


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
    ``ATTEMPTS`` answers in all. The key comes from the environment (``KEYS``) and is sent to ``url`` only.

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
    endpoint, where = _endpoint(url)
    key = next((v for k in KEYS if (v := os.environ.get(k, "").strip())), "")
    if key and not endpoint.startswith("https:") and not _local(endpoint):
        note(f"{where} is not encrypted: the key and the labels travel in the clear")
    names = sorted(set(labels))
    asked = f"Labels ({len(names)}), as JSON: {json.dumps(names, ensure_ascii=False)}"
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{asked}\nThe images: {about}" if about else asked},
    ]
    problem = ""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(headers=headers, timeout=timeout) as client:  # redirects are not followed: the key stays here
        for _ in range(ATTEMPTS):
            said = _answer(client, endpoint, where, model, messages, timeout, wait, key)
            try:
                return _read(said, names, name, model)
            except ValueError as error:
                problem = one_line(str(error))
                note(f"answer refused: {problem}")
            messages += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": f"That cannot be used: {problem}. Answer again with the whole graph."},
            ]
    raise LlmError(f"{model} at {where} gave no usable graph in {ATTEMPTS} answers; the last: {problem}")


def _endpoint(url: str) -> tuple[str, str]:
    """The address to post to, and how messages name it: without what may be secret in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LlmError(f"--llm-url must be an http or https address such as http://127.0.0.1:11434/v1; got {url!r}")
    if parts.username or parts.password or parts.query:
        raise LlmError(f"--llm-url must hold no user, password or query; put the key into {KEYS[0]}")
    base = url.rstrip("/")
    return base if base.endswith(
        "/chat/completions"
    ) else f"{base}/chat/completions", f"{parts.scheme}://{parts.netloc}"


def _local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer(
    client: httpx.Client,
    endpoint: str,
    where: str,
    model: str,
    messages: list[dict[str, str]],
    timeout: float,
    wait: Callable[[float], None],
    key: str,
) -> str:
    """The text of one answer; asks again where the server is busy or broken."""
    body = {
        "model": model,
        "messages": messages,
        "temperature": 0,
        "seed": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "concept_graph", "strict": True, "schema": SCHEMA},
        },
    }
    for pause in (*WAIT_S, None):
        try:
            status, headers, content = _post(client, endpoint, body, timeout)
        except httpx.TimeoutException:
            raise LlmError(
                f"{where} gave no answer in {timeout:g} s; raise --llm-timeout or take a faster model"
            ) from None
        except httpx.HTTPError as error:
            raise LlmError(f"{where} cannot be reached ({one_line(str(error)) or type(error).__name__})") from error
        if status == 200:
            return _text(content, where)
        why = _hidden(one_line(content.decode("utf-8", "replace"))[:300], key)
        if status in (401, 403):
            has = "refuses the key" if key else "wants a key"
            raise LlmError(f"{where} {has} (HTTP {status}); set {KEYS[0]} or {KEYS[1]} in the environment")
        if status != 429 and status < 500:
            raise LlmError(
                f"{where} refuses the request (HTTP {status}: {why or 'no reason given'}); check --llm-url and "
                f"--llm-model, and that the server supports response_format json_schema"
            )
        if pause is None:
            busy = "is busy" if status == 429 else "fails"
            raise LlmError(f"{where} {busy} (HTTP {status}: {why or 'no reason given'}); try again later")
        wait(_pause(headers, pause))
    raise AssertionError("the last pause is None")


def _post(client: httpx.Client, endpoint: str, body: Any, timeout: float) -> tuple[int, httpx.Headers, bytes]:
    """Post and read the answer. httpx limits the time between two bytes; here the whole answer counts, too."""
    end = time.monotonic() + timeout
    with client.stream("POST", endpoint, json=body) as response:
        parts: list[bytes] = []
        for part in response.iter_bytes():
            parts.append(part)
            if time.monotonic() > end:
                raise httpx.ReadTimeout("the answer came too slowly")
            if sum(map(len, parts)) > MOST_BYTES:
                raise httpx.RequestError(f"an answer of more than {MOST_BYTES} bytes")
        return response.status_code, response.headers, b"".join(parts)


def _pause(headers: httpx.Headers, pause: float) -> float:
    try:
        return min(max(float(headers.get("retry-after", pause)), 0.0), LONGEST_WAIT_S)
    except ValueError:
        return pause


def _hidden(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text


def _text(content: bytes, where: str) -> str:
    """The message of a chat completion."""
    try:
        choice = json.loads(content)["choices"][0]
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise LlmError(f"{where} does not answer as an OpenAI-compatible chat endpoint does; check --llm-url") from None
    if refusal:
        raise LlmError(f"the model refuses: {one_line(str(refusal))[:300]}")
    return text if isinstance(text, str) else ""


def _read(said: str, labels: list[str], name: str, model: str) -> Draft:
    """The answer as a checked graph; raises ValueError in words that the model can act on."""
    start = said.find("{")
    if start < 0:
        raise ValueError("the answer holds no JSON object")
    try:
        # Some models wrap the object in prose or a code fence; what is inside is checked all the same.
        got, _ = json.JSONDecoder().raw_decode(said[start:])
    except json.JSONDecodeError as error:
        raise ValueError(f"the answer is no valid JSON ({error})") from error
    if not isinstance(got.get("concepts"), list):
        raise ValueError('the answer has no list "concepts"')
    if unknown := sorted(set(got) - set(SCHEMA["properties"])):
        raise ValueError(f"unknown key {unknown[0]!r}")
    concepts: dict[str, Any] = {}
    for node in got["concepts"]:
        if not isinstance(node, dict) or set(node) != {"label", "family", "attributes", "prompts"}:
            raise ValueError("each concept needs exactly label, family, attributes and prompts")
        if not isinstance(node["label"], str) or node["label"] in concepts:
            raise ValueError(f"label {node['label']!r} is given twice or is no text")
        concepts[node["label"]] = {
            "coarse": node["family"],
            "abstract": node["attributes"],
            "prompts": node["prompts"],
        }
    if missing := sorted(set(labels) - set(concepts)):
        raise ValueError(f"these labels are missing: {', '.join(missing)}")
    if invented := sorted(set(concepts) - set(labels)):
        raise ValueError(f"these are not labels of the dataset: {', '.join(invented)}")
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
            raise ValueError(f'attribute "{attribute}" is carried by every label and says nothing; leave it out')
    written = graph.to_dict()
    if control := [s for s in _strings(written) if not s.isprintable()]:
        raise ValueError(f"a text holds a line break or control character: {control[0]!r}")
    return Draft(written, dict.fromkeys(graph.coarse, f"family by {one_line(model)}"))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in [str(k), *_strings(v)]]
    return [s for v in value for s in _strings(v)] if isinstance(value, list) else []
