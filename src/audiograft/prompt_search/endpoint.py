"""An optimiser behind an OpenAI-compatible endpoint, such as those of vLLM, llama.cpp and Ollama."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from audiograft.prompt_search.optimisers import OptimiserError, Scored, optimiser_messages

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable that holds the key, where one is needed."""
_ATTEMPTS = 4
_FIRST_WAIT_S = 1.0
"""Before the second attempt; doubled with each."""
_TIMEOUT_S = 120.0
_MAX_TOKENS = 1024
"""Of a reply: models that think first need some."""
_MAX_BYTES = 1 << 22
_WORTH_ANOTHER_TRY = frozenset((408, 425, 429, 500, 502, 503, 504))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key is for the server that was named, and for no other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class EndpointOptimiser:
    """Asks `POST URL/chat/completions`, once for each prompt that is wanted."""

    def __init__(
        self,
        url: str,
        model: str,
        answers: Mapping[str, str],
        temperature: float = 0.9,
        key: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        """Name the endpoint; nothing is asked yet.

        Args:
            url: its base, such as http://localhost:8000/v1.
            model: its name there.
            answers: of the closed question, by label.
            temperature: of the sampling.
            key: sent as a bearer token; None for none. It is written nowhere.
            timeout_s: for one reply.
            first_wait_s: before the second attempt; doubled with each.

        Raises:
            OptimiserError: no address of a server, or one that holds a password.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptimiserError(f"--optimiser {url}: no address of an endpoint: give one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise OptimiserError(f"--optimiser: the address of {parts.hostname} holds more than a path: put the key into {KEY_VARIABLE}")
        self._url = url.rstrip("/") + "/chat/completions"
        self._model = model
        self._answers = answers
        self._temperature = temperature
        self._key = key
        self._timeout_s = timeout_s
        self._first_wait_s = first_wait_s
        self._opener = urllib.request.build_opener(_NoRedirects)

    @property
    def description(self) -> Mapping[str, Any]:
        return {"kind": "endpoint", "url": self._url, "model": self._model, "temperature": self._temperature}

    def propose(self, history: Sequence[Scored], n: int, seed: int) -> list[str]:
        messages = optimiser_messages(history, self._answers)
        body = {"model": self._model, "messages": messages, "temperature": self._temperature, "max_tokens": _MAX_TOKENS}
        # Each with a seed of its own: servers that heed it would write the same text n times.
        return [_text(self._post({**body, "seed": (seed + number) % 2**31})) for number in range(n)]

    def _post(self, body: Mapping[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        wait_s, why = self._first_wait_s, ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(wait_s)
                wait_s *= 2
            request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
            try:
                with self._opener.open(request, timeout=self._timeout_s) as answer:
                    content: bytes = answer.read(_MAX_BYTES)
                    return content
            except urllib.error.HTTPError as error:
                why = f"HTTP {error.code}{_detail(error)}"
                if error.code not in _WORTH_ANOTHER_TRY:
                    raise OptimiserError(f"{self._url}: {why}: {_mend(error.code)}") from error
            except (OSError, http.client.HTTPException) as error:
                why = _reason(error)
        raise OptimiserError(f"{self._url}: {why}, {_ATTEMPTS} times: start the server or correct the address; the same command then goes on")


def _reason(error: Exception) -> str:
    """Why there was no answer, in few words."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


def _text(content: bytes) -> str:
    """What the model wrote; of an answer in another form its beginning, which holds no prompt and is counted as such."""
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        text = None
    return text if isinstance(text, str) else content[:200].decode("utf-8", errors="replace")


def _detail(error: urllib.error.HTTPError) -> str:
    """What the server says about it, in few words."""
    try:
        told = json.loads(error.read(_MAX_BYTES))["error"]["message"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" ({' '.join(told.split())[:200]})" if isinstance(told, str) else ""


def _mend(status: int) -> str:
    if status in (401, 403):
        return f"put a key that it takes into {KEY_VARIABLE}"
    if status == 404:
        return "correct the address, which often ends in /v1, or --optimiser-model"
    if 300 <= status < 400:
        return "it sends elsewhere: name the address that it sends to"
    return "correct --optimiser-model, or look into the server's log"
