"""Language models as optimisers: one on this machine, and one behind an endpoint that behaves as badly as real ones do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import builders
import pytest
from file_server import running

from audiograft.inference.choices import DEFAULT_QUESTION
from audiograft.prompt_search.endpoint import EndpointOptimiser
from audiograft.prompt_search.local import LocalOptimiser
from audiograft.prompt_search.optimisers import OptimiserError, Scored, extract_prompt, optimiser_messages
from audiograft.types import ConfigError

ANSWERS = DEFAULT_QUESTION.answers
HISTORY = [
    Scored("Is it A) SPEECH or B) NONSPEECH?", 0.61, 0.6, 0.6, {"SPEECH": 0.5, "NONSPEECH": 0.7}, 0),
    Scored("Listen: A) SPEECH or B) NONSPEECH?", 0.905, 0.9, 0.9, {"SPEECH": 0.9, "NONSPEECH": 0.9}, 1),
]


@dataclass
class Endpoint:
    """What it answers, in order, the last for ever: a status with a body, or None to be silent; and what it was asked."""

    address: str = ""
    answers: list[tuple[int, Any] | None] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    location: str = ""

    def optimiser(self, **options: Any) -> EndpointOptimiser:
        return EndpointOptimiser(self.address, "some-model", ANSWERS, first_wait_s=0.001, **options)


def said(text: Any) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    shop = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:  # noqa: N802
            shop.paths.append(self.path)
            shop.keys.append(self.headers.get("Authorization"))
            shop.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = shop.answers.pop(0) if len(shop.answers) > 1 else shop.answers[0]
            if answer is None:
                time.sleep(0.3)
                return
            status, body = answer
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if shop.location:
                self.send_header("Location", shop.location)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        shop.address = address + "/v1"
        yield shop


def test_what_a_language_model_is_told_has_scores_answers_and_form() -> None:
    _, user = optimiser_messages(HISTORY, ANSWERS)
    text = user["content"]
    assert text.index("score 61.0") < text.index(HISTORY[0].prompt) < text.index("score 90.5 (right: SPEECH 90 %, NONSPEECH 90 %)")
    assert "A (which means SPEECH), B (which means NONSPEECH)" in text
    assert "10 to 300 characters" in text
    words = optimiser_messages(HISTORY, {"dog": "dog", "car": "car"})[1]["content"]
    assert "exactly one of: dog, car." in words
    assert "means" not in words


def test_an_endpoint_is_asked_once_a_prompt(endpoint: Endpoint) -> None:
    endpoint.answers = [said("<PROMPT>one</PROMPT>"), said("<PROMPT>two</PROMPT>")]
    assert endpoint.optimiser(key="sesame", temperature=0.7).propose(HISTORY, 2, 2**32 - 1) == ["<PROMPT>one</PROMPT>", "<PROMPT>two</PROMPT>"]
    assert endpoint.paths == ["/v1/chat/completions"] * 2
    assert endpoint.keys == ["Bearer sesame"] * 2
    assert [(body["model"], body["temperature"]) for body in endpoint.bodies] == [("some-model", 0.7)] * 2
    assert endpoint.bodies[0]["messages"] == optimiser_messages(HISTORY, ANSWERS)
    assert len({body["seed"] for body in endpoint.bodies}) == 2
    assert "sesame" not in json.dumps(dict(endpoint.optimiser(key="sesame").description))


def test_without_a_key_none_is_sent(endpoint: Endpoint) -> None:
    endpoint.answers = [said("x")]
    endpoint.optimiser().propose(HISTORY, 1, 0)
    assert endpoint.keys == [None]


def test_troubles_that_pass_are_waited_for(endpoint: Endpoint) -> None:
    endpoint.answers = [(500, {}), (429, {}), (503, b"busy"), said("at last")]
    assert endpoint.optimiser().propose(HISTORY, 1, 0) == ["at last"]


def test_a_server_that_stays_broken_is_one_line(endpoint: Endpoint) -> None:
    endpoint.answers = [(500, {"error": {"message": "out of\nmemory"}})]
    with pytest.raises(OptimiserError) as error:
        endpoint.optimiser().propose(HISTORY, 1, 0)
    assert str(error.value) == (
        f"{endpoint.address}/chat/completions: HTTP 500 (out of memory), 4 times: "
        "start the server or correct the address; the same command then goes on"
    )
    assert len(endpoint.bodies) == 4


def test_a_server_that_is_silent_is_given_up(endpoint: Endpoint) -> None:
    endpoint.answers = [None]
    with pytest.raises(OptimiserError, match="no answer in time, 4 times"):
        endpoint.optimiser(timeout_s=0.02).propose(HISTORY, 1, 0)


def test_no_server_is_one_line() -> None:
    with pytest.raises(OptimiserError, match=r"http://127\.0\.0\.1:9/v1/chat/completions: Connection refused, 4 times"):
        EndpointOptimiser("http://127.0.0.1:9/v1/", "m", ANSWERS, first_wait_s=0.001).propose(HISTORY, 1, 0)


@pytest.mark.parametrize(
    ("status", "mend"), [(401, "OPENAI_API_KEY"), (404, "ends in /v1, or --optimiser-model"), (400, "look into the server's log")]
)
def test_what_does_not_pass_is_not_tried_again(endpoint: Endpoint, status: int, mend: str) -> None:
    endpoint.answers = [(status, {"error": {"message": "no"}})]
    with pytest.raises(OptimiserError, match=rf"HTTP {status} \(no\): .*{mend}"):
        endpoint.optimiser(key="sesame").propose(HISTORY, 3, 0)
    assert len(endpoint.bodies) == 1


def test_the_key_does_not_follow_a_redirect(endpoint: Endpoint) -> None:
    endpoint.answers, endpoint.location = [(302, {})], endpoint.address + "/elsewhere"
    with pytest.raises(OptimiserError, match="HTTP 302: it sends elsewhere"):
        endpoint.optimiser(key="sesame").propose(HISTORY, 1, 0)
    assert len(endpoint.paths) == 1


@pytest.mark.parametrize(
    "body", [b"<html>", b"\xff\xfe", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"[" * 100_000]
)
def test_nonsense_is_a_reply_without_a_prompt(endpoint: Endpoint, body: bytes) -> None:
    endpoint.answers = [(200, body)]
    [reply] = endpoint.optimiser().propose(HISTORY, 1, 0)
    assert extract_prompt(reply) is None
    assert len(reply) <= 200


@pytest.mark.parametrize(
    ("url", "complaint"), [("ftp://x/v1", "no address"), ("http://", "no address"), ("http://me:sesame@x/v1", "put the key into OPENAI_API_KEY")]
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str, complaint: str) -> None:
    with pytest.raises(OptimiserError, match=complaint) as error:
        EndpointOptimiser(url, "m", ANSWERS)
    assert "sesame" not in str(error.value)


def test_a_model_on_this_machine_draws_replies_by_its_seed(tmp_path: Path) -> None:
    optimiser = LocalOptimiser(str(builders.lm_checkpoint(tmp_path)), ANSWERS, device="cpu", max_new_tokens=6)
    replies = optimiser.propose(HISTORY, 3, 1)
    assert len(replies) == 3
    assert len(set(replies)) == 3
    assert optimiser.propose(HISTORY, 3, 1) == replies
    assert optimiser.propose(HISTORY, 3, 2) != replies


def test_a_local_model_that_can_not_be_used_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model nowhere"):
        LocalOptimiser("nowhere", ANSWERS).propose(HISTORY, 1, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="can't load the tokenizer of"):
        LocalOptimiser(str(tmp_path / "empty"), ANSWERS).propose(HISTORY, 1, 0)
    builders.language_model("qwen2").save_pretrained(tmp_path / "base")
    bare = builders.tokenizer()
    bare.chat_template = None
    bare.save_pretrained(tmp_path / "base")
    with pytest.raises(OptimiserError, match="has no chat template: use the model's instruct variant"):
        LocalOptimiser(str(tmp_path / "base"), ANSWERS).propose(HISTORY, 1, 0)
    small = builders.language_model("qwen2", max_position_embeddings=64)
    small.save_pretrained(tmp_path / "small")
    builders.tokenizer().save_pretrained(tmp_path / "small")
    with pytest.raises(OptimiserError, match="its context of 64 tokens has no room for"):
        LocalOptimiser(str(tmp_path / "small"), ANSWERS, device="cpu").propose(HISTORY, 1, 0)
