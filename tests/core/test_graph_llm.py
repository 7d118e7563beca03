"""The language-model builder against a server on loopback that speaks the chat-completions protocol."""

import gzip
import json
import os
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gsal_fo.cli import main
from gsal_fo.concepts.build import llm
from gsal_fo.concepts.build.llm import LlmError
from gsal_fo.concepts.graph import ConceptGraph

KEY = "sk-very-secret"
LABELS = ["crack", "void"]


def node(label: str, family: str, *attributes: str) -> dict[str, Any]:
    return {"label": label, "family": family, "attributes": list(attributes), "prompts": [label]}


GOOD = {
    "templates": ["a slice with a {}"],
    "background": ["film"],
    "concepts": [node("crack", "fracture", "dark", "linear"), node("void", "cavity", "dark_inside", "round")],
}
TWO_LEVELS = {**GOOD, "concepts": [node("crack", "void"), node("void", "cavity")]}


def chat(content: Any) -> tuple[int, bytes]:
    text = content if isinstance(content, str) else json.dumps(content)
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Server:
    """Gives the planned answers one after the other, the last for ever; keeps what it was asked."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers, self.asked, self.keys, self.waits = list(answers), [], [], []
        outer = self
        self.end = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                outer.keys.append(self.headers.get("Authorization"))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer == "slow":
                    outer.end.wait(30)
                    return
                if answer == "drip":  # a byte now and then: no single wait is long
                    self.send_response(200)
                    self.end_headers()
                    while not outer.end.wait(0.05):
                        try:
                            self.wfile.write(b" ")
                            self.wfile.flush()
                        except OSError:
                            return
                    return
                status, data, *headers = answer
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def draft(self, **more: Any) -> Any:
        self.notes: list[str] = []
        return llm.draft(
            LABELS,
            **{"url": self.url, "model": "m", "name": "g", "wait": self.waits.append, "note": self.notes.append} | more,
        )


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.setenv("GSAL_LLM_KEY", KEY)
    servers: list[Server] = []

    def start(*answers: Any) -> Server:
        servers.append(Server(list(answers)))
        return servers[-1]

    yield start
    for server in servers:
        server.end.set()
        server.http.shutdown()
        server.http.server_close()


Serve = Callable[..., Server]


def test_a_good_answer_is_the_graph_and_the_request_is_strict(serve: Serve):
    server = serve(chat(GOOD))
    graph = ConceptGraph.from_dict(server.draft(about="film slices").values)
    assert graph.path("crack") == ["crack", "fracture", "dark", "linear"] and graph.background == ["film"]
    ((path, body),) = server.asked
    assert path == "/v1/chat/completions" and body["model"] == "m" and body["temperature"] == 0
    assert body["response_format"]["type"] == "json_schema" and body["response_format"]["json_schema"]["strict"]
    assert "film slices" in body["messages"][1]["content"] and '["crack", "void"]' in body["messages"][1]["content"]
    assert server.keys == [f"Bearer {KEY}"]


def test_prose_around_the_json_is_read_past(serve: Serve):
    server = serve(chat(f"Here it is:\n```json\n{json.dumps(GOOD)}\n```\nEnjoy!"))
    assert set(server.draft().values["concepts"]) == set(LABELS) and server.notes == []


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (chat("I would rather not."), "holds no JSON object"),
        (chat('{"concepts": ['), "no valid JSON"),
        (chat({"nodes": []}), 'no list "concepts"'),
        (chat({**GOOD, "concepts": [{"label": "crack"}]}), "exactly label, family, attributes and prompts"),
        (chat({**GOOD, "concepts": [node("crack", "f")]}), "missing: void"),
        (chat({**GOOD, "concepts": [*GOOD["concepts"], node("dent", "f")]}), "not labels of the dataset: dent"),
        (chat(TWO_LEVELS), '"void" is used on two levels'),
        (chat({**GOOD, "concepts": [node("crack", "a", "dark"), node("void", "b", "dark")]}), "carried by every label"),
        (chat({**GOOD, "templates": ["no place"]}), "has no single {}"),
        (chat({**GOOD, "concepts": [node("crack", "f", "x\ny"), node("void", "f")]}), "line break"),
    ],
)
def test_a_bad_answer_goes_back_with_the_reason_and_a_good_one_is_taken(serve: Serve, bad, told):
    server = serve(bad, chat(GOOD))
    assert set(server.draft().values["concepts"]) == set(LABELS)
    assert len(server.asked) == 2 and told in server.notes[0]
    messages = server.asked[1][1]["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"] and told in messages[-1]["content"]


def test_bad_answers_to_the_end_are_one_sentence_with_the_last_reason(serve: Serve):
    server = serve(chat(TWO_LEVELS))
    with pytest.raises(LlmError, match=r'no usable graph in 4 answers; the last: .*"void" is used on two levels'):
        server.draft()
    assert len(server.asked) == 4


def test_a_refused_key_ends_at_once_and_is_never_shown(serve: Serve, monkeypatch):
    server = serve((401, f'{{"error": "Incorrect API key {KEY}"}}'.encode()))
    with pytest.raises(LlmError, match=r"refuses the key .HTTP 401.; set GSAL_LLM_KEY") as caught:
        server.draft()
    assert len(server.asked) == 1 and KEY not in str(caught.value)
    monkeypatch.delenv("GSAL_LLM_KEY")
    with pytest.raises(LlmError, match="wants a key"):
        server.draft()
    assert server.keys[-1] is None


def test_a_busy_or_failing_server_is_asked_again_after_the_time_it_names(serve: Serve):
    server = serve((429, b"slow down", ("Retry-After", "7")), (500, b"oops"), chat(GOOD))
    assert set(server.draft().values["concepts"]) == set(LABELS)
    assert server.waits == [7.0, 4.0]


@pytest.mark.parametrize(("status", "said"), [(429, "is busy"), (500, "fails")])
def test_a_server_that_stays_so_is_one_sentence_without_the_key(serve: Serve, status, said):
    server = serve((status, f"no {KEY}\nfor you".encode()))
    with pytest.raises(LlmError, match=f"{said} .HTTP {status}: no \\*\\*\\* for you.; try again later"):
        server.draft()
    assert len(server.asked) == 4


def test_a_server_without_json_schema_is_told_so(serve: Serve):
    with pytest.raises(LlmError, match=r"HTTP 400: unknown field.*supports response_format json_schema"):
        serve((400, b"unknown field")).draft()


@pytest.mark.parametrize("kind", ["slow", "drip"])
def test_a_slow_answer_ends_in_time(serve: Serve, kind):
    started = time.monotonic()
    with pytest.raises(LlmError, match=r"gave no answer in 0\.3 s; raise --llm-timeout"):
        serve(kind).draft(timeout=0.3)
    assert time.monotonic() - started < 20  # a hang would last 30 s and longer


@pytest.mark.parametrize("data", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": "x"}]}', b"[1]"])
def test_something_else_than_a_chat_endpoint_is_said_to_be_so(serve: Serve, data):
    with pytest.raises(LlmError, match="does not answer as an OpenAI-compatible chat endpoint"):
        serve((200, data)).draft()


def test_the_key_does_not_follow_a_redirect(serve: Serve):
    other = serve(chat(GOOD))
    server = serve((302, b"", ("Location", f"{other.url}/chat/completions")))
    with pytest.raises(LlmError, match="HTTP 302"):
        server.draft()
    assert other.asked == []


BAD_ADDRESSES = [
    "ftp://x/v1",
    "nonsense",
    "",
    "https://user:sk-hidden@host/v1",
    "https://sk-hidden@host/v1",
    "ftp://user:sk-hidden@host/v1",
    "https://host/v1?key=sk-hidden",
    "https://host/v1#sk-hidden",
    "https://user:sk-hidden@[half/v1",
    "https://user:sk-hidden@h\u2100st/v1",
    "https://host:99999999/v1",
    "https://host:sk-hidden/v1",
    "https://a host/v1",
    "file:///etc/passwd",
    "https://",
]


@pytest.mark.parametrize("url", BAD_ADDRESSES)
def test_a_bad_address_is_refused_and_not_repeated(url):
    with pytest.raises(LlmError, match="--llm-url must") as caught:
        llm.draft(LABELS, url=url, model="m", name="g")
    shown = "".join(traceback.format_exception(caught.value)).split("LlmError: ")[-1]
    assert "hidden" not in shown and "hidden" not in repr(caught.value.__cause__)


def test_no_key_of_another_service_is_sent(serve: Serve, monkeypatch):
    monkeypatch.delenv("GSAL_LLM_KEY")
    server = serve(chat(GOOD))
    server.draft()
    assert server.keys == [None]


@pytest.mark.parametrize("key", ["sk-very\nsecret", "sk-very secret", "sk-größe", "sk-\x07secret", "sk-\ud800secret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(serve: Serve, monkeypatch, key):
    monkeypatch.setattr("os.environ", {**os.environ, "GSAL_LLM_KEY": key})
    server = serve(chat(GOOD))
    with pytest.raises(LlmError, match="GSAL_LLM_KEY holds a character that no key has") as caught:
        server.draft()
    assert server.asked == [] and "secret" not in str(caught.value) and "sk-" not in str(caught.value)


ECHOES = [
    "x" * 285 + " " + KEY,  # cut in the middle of the key
    "x" * 190 + KEY,
    KEY.upper(),
    f"{KEY[:9]}...{KEY[-5:]}",
    f"{KEY}{KEY} {KEY}",
    json.dumps({"error": f"Bearer {KEY}"}),
    f"İ{KEY}",  # its small form has another length
]


@pytest.mark.parametrize("status", [400, 404, 500, 302])
@pytest.mark.parametrize("echo", ECHOES, ids=range(len(ECHOES)))
def test_no_piece_of_the_key_is_in_an_error(serve: Serve, echo, status):
    with pytest.raises(LlmError) as caught:
        serve((status, echo.encode())).draft()
    said = "".join(traceback.format_exception(caught.value)).lower()
    pieces = [KEY[i : i + 5] for i in range(len(KEY) - 4)]
    assert not [p for p in pieces if p in said.split("llmerror: ")[-1]]
    assert len(str(caught.value)) < 400


def test_a_server_cannot_write_the_key_into_the_graph_or_a_note(serve: Serve, monkeypatch):
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("GSAL_LLM_KEY", key)
    told = {**GOOD, "background": [f"film {key}"]}
    assert key not in str(serve(chat(told)).draft())
    server = serve(chat({**GOOD, "concepts": [node("crack", key), node(key, "cavity")]}), chat(GOOD))
    server.draft()
    assert key not in str(server.notes)
    refusal = json.dumps({"choices": [{"message": {"content": None, "refusal": f"no, {key}"}}]}).encode()
    with pytest.raises(LlmError, match=r"the model refuses: no, \*\*\*$"):
        serve((200, refusal)).draft()


@pytest.mark.parametrize("key", ["none", "test", "m"])
def test_the_dummy_key_of_a_local_server_changes_no_answer(serve: Serve, monkeypatch, key):
    monkeypatch.setenv("GSAL_LLM_KEY", key)
    told = {**GOOD, "background": ["a test film with none of them"]}
    assert serve(chat(told)).draft().values["background"] == ["a test film with none of them"]


def test_a_packed_answer_is_not_unpacked(serve: Serve):
    packed = gzip.compress(bytes(10**7))
    with pytest.raises(LlmError, match="answers packed"):
        serve((200, packed, ("Content-Encoding", "gzip"))).draft()


@pytest.mark.parametrize("after", ["nan", "inf", "-5", "1e400", "soon"])
def test_an_odd_time_to_wait_is_no_trouble(serve: Serve, after):
    server = serve((429, b"", ("Retry-After", after)), chat(GOOD))
    server.draft()
    assert len(server.waits) == 1 and 0 <= server.waits[0] <= 60


@pytest.mark.parametrize("data", [b"[" * 10**5, chat("{" + '"a":[' * 10**5)[1]])
def test_an_answer_nested_without_end_is_one_sentence(serve: Serve, data):
    with pytest.raises(LlmError) as caught:
        serve((200, data)).draft()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("seconds", [0, float("inf"), float("nan"), -1])
def test_a_timeout_is_a_time(seconds):
    with pytest.raises(ValueError, match="timeout must be a number in"):
        llm.draft(LABELS, url="http://127.0.0.1/v1", model="m", name="g", timeout=seconds)


def test_nobody_there_is_one_sentence(serve: Serve):
    server = serve(chat(GOOD))
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(LlmError, match="cannot be reached"):
        server.draft()


def test_the_command_writes_the_file_once_and_tells_whose_it_is(serve: Serve, tmp_path, capsys):
    server = serve(chat(TWO_LEVELS), chat(GOOD))
    (tmp_path / "labels.txt").write_text("void\ncrack\n")
    out = tmp_path / "film.yaml"
    command = ["concepts", "build", "--labels", str(tmp_path / "labels.txt"), "--out", str(out)]
    command += ["--llm-url", server.url, "--llm-model", "tiny"]
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["fine"] == LABELS and "answer refused" in shown.err
    text = out.read_text()
    assert "by the language model tiny" in text and "# fracture: family by tiny" in text
    assert KEY not in text + shown.out + shown.err
    assert main(["concepts", "check", str(out)]) == 0
    assert main(command) == 1 and len(server.asked) == 2  # an existing file costs no answer
    assert out.read_text() == text
