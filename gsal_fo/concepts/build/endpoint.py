"""A chat endpoint that speaks OpenAI's protocol: one answer per call, and a key that goes nowhere else."""

import ipaddress
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from gsal_fo.settings import check_number
from gsal_fo.user_files import words

KEY = (
    "GSAL_LLM_KEY"  # no other variable is read: a key of another service is not sent to an address that is not its own
)
WAIT_S = (1.0, 4.0, 10.0)  # before another request after 429 or 5xx; a server's Retry-After goes first
LONGEST_WAIT_S = 60.0
TIMEOUT_S = 120.0
LONGEST_TIMEOUT_S = 86_400.0
MOST_BYTES = 2_000_000  # of an answer
PIECE = 5  # characters: a piece of the key this long is not shown
SURE = 12  # characters of a key that stands in no answer by chance, as the "none" of a local server does


class LlmError(ValueError):
    """The endpoint gave no usable graph; the message says in one sentence why and what to do."""


class Endpoint:
    """Where a language model answers. ``where`` names it in messages, without what may be secret in it."""

    def __init__(self, url: str, *, timeout: float, wait: Callable[[float], None] = time.sleep) -> None:
        """Raises LlmError for an address or a key that cannot be used; neither is repeated in it."""
        check_number("timeout", timeout, low=0.1, high=LONGEST_TIMEOUT_S)
        self.url, self.where = _address(url)
        self.timeout, self.wait = timeout, wait
        self._key = os.environ.get(KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise LlmError(f"{KEY} holds a character that no key has, such as a line break; set it again")

    @property
    def in_the_clear(self) -> bool:
        """Whether a key is sent unencrypted to another machine."""
        return bool(self._key) and not self.url.startswith("https:") and not _local(self.url)

    def ask(self, body: Mapping[str, Any]) -> str:
        """The text of one answer; asks again where the server is busy or broken.

        Raises:
            LlmError: wrong key, no answer in time, or no chat endpoint there.
        """
        for pause in (*WAIT_S, None):
            status, headers, content = self._post(body)
            if status == 200:
                return self._text(content)
            if status in (401, 403):
                has = "refuses the key" if self._key else "wants a key"
                raise LlmError(f"{self.where} {has} (HTTP {status}); set {KEY} in the environment")
            why = words(ValueError(self.hidden(content.decode("utf-8", "replace")))) if content else "no reason given"
            if 300 <= status < 400:
                raise LlmError(
                    f"{self.where} sends elsewhere (HTTP {status}), where the key does not follow; give that address "
                    "with --llm-url if you trust it"
                )
            if status != 429 and status < 500:
                raise LlmError(
                    f"{self.where} refuses the request (HTTP {status}: {why}); check --llm-url and --llm-model, and "
                    "that the server supports response_format json_schema"
                )
            if pause is None:
                busy = "is busy" if status == 429 else "fails"
                raise LlmError(f"{self.where} {busy} (HTTP {status}: {why}); try again later")
            self.wait(_pause(headers, pause))
        raise AssertionError("the last pause is None")

    def hidden(self, text: str) -> str:
        """The text without the key or pieces of it: servers repeat it, whole, shortened or in capitals."""
        if not self._key:
            return text
        key, low = self._key.lower(), text.lower()
        if len(low) != len(text):  # a letter whose small form is longer: places would not agree
            return "not shown"
        size = min(PIECE, len(key))
        shown = list(text)
        for piece in {key[i : i + size] for i in range(len(key) - size + 1)}:
            at = low.find(piece)
            while at >= 0:
                shown[at : at + size] = [""] * size
                at = low.find(piece, at + 1)
        return "".join(c or ("***" if i == 0 or shown[i - 1] else "") for i, c in enumerate(shown))

    def _post(self, body: Mapping[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Post and read the answer. httpx limits the time between two bytes; here the whole answer counts, too."""
        end = time.monotonic() + self.timeout
        # No answer that unpacks to more than it weighs is asked for. Redirects are not followed: the key stays here.
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
        try:
            with (
                httpx.Client(headers=headers, timeout=self.timeout, follow_redirects=False) as client,
                client.stream("POST", self.url, json=body) as response,
            ):
                if response.headers.get("content-encoding", "").lower() not in ("", "identity"):
                    raise httpx.RequestError("it answers packed, which was not asked for")
                content = bytearray()
                for part in response.iter_raw():
                    content += part
                    if time.monotonic() > end:
                        raise httpx.ReadTimeout("the answer came too slowly")
                    if len(content) > MOST_BYTES:
                        raise httpx.RequestError(f"an answer of more than {MOST_BYTES} bytes")
                return response.status_code, response.headers, bytes(content)
        except httpx.TimeoutException:
            raise LlmError(
                f"{self.where} gave no answer in {self.timeout:g} s; raise --llm-timeout or take a faster model"
            ) from None
        # `from None`: the causes hold the request with its headers, and --debug would print them.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise LlmError(f"{self.where} cannot be reached ({words(ValueError(self.hidden(str(error))))})") from None

    def _text(self, content: bytes) -> str:
        """The message of a chat completion."""
        try:
            message = json.loads(content)["choices"][0]["message"]
            text, refusal = message.get("content"), message.get("refusal")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise LlmError(
                f"{self.where} does not answer as an OpenAI-compatible chat endpoint does; check --llm-url"
            ) from None
        if refusal:
            raise LlmError(f"the model refuses: {words(ValueError(self.hidden(str(refusal))))}")
        if not isinstance(text, str):
            return ""
        return text.replace(self._key, "***") if len(self._key) >= SURE else text


def _address(url: str) -> tuple[str, str]:
    """The address to post to, and how messages name it."""
    cure = "give an http or https address such as http://127.0.0.1:11434/v1"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may repeat a password
        raise LlmError(f"--llm-url must be an address; {cure}") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise LlmError(f"--llm-url must hold no user, password, query or fragment; put the key into {KEY}")
    odd = any(c.isspace() or not c.isprintable() for c in url.strip())
    if parts.scheme not in ("http", "https") or not host or odd:
        raise LlmError(f"--llm-url must be an http or https address; {cure}")
    base = url.strip().rstrip("/")
    where = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions", where


def _local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pause(headers: httpx.Headers, pause: float) -> float:
    try:
        asked = float(headers.get("retry-after", pause))
    except ValueError:
        return pause
    return pause if math.isnan(asked) else min(max(asked, 0.0), LONGEST_WAIT_S)
