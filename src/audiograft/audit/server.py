"""The review's server: the page, the run as JSON, its audio by number, and verdicts into their file."""

from __future__ import annotations

import gzip
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from audiograft.audit.blind import blind_order, blind_texts, category_of
from audiograft.audit.guard import LOOPBACK, TOKEN_HEADER, Guard, is_token
from audiograft.audit.log import UnsavedError, VerdictLog
from audiograft.audit.peaks import clip_peaks
from audiograft.audit.rows import clip_rows, patterns_row, results_row, run_row, verdict_row, verdict_rows
from audiograft.audit.run import AuditRun
from audiograft.audit.sound import media_type, wav_bytes
from audiograft.audit.suggestions import Suggestion
from audiograft.audit.tables import verdicts_csv
from audiograft.audit.verdicts import CHOICES, check_rater, read_event_id, read_verdict
from audiograft.types import AudioError, AudiograftError, DataError

PAGE = Path(__file__).parent / "page"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_TOKEN_PLACE = '<meta name="audiograft-token" content="">'
_MAX_BODY_BYTES = 200_000
"""Two texts of the greatest length, each character as an escape, and what stands around them."""
_GZIP_LEVEL = 1
"""Higher levels save little and cost seconds at 10,000 clips."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_BLIND_REFUSAL = "not in a blind session: it would tell which text is the label; start audiograft audit without --blind"


@dataclass(frozen=True)
class Session:
    """What the server answers from.

    Attributes:
        run: the clips.
        log: where verdicts go.
        blind: the rater is not to know which text is the label.
        rater: the name that the page begins with; empty where it asks.
        suggestions: likely label errors by id, where they were looked for.
        token: what the page sends with each verdict.
        normalised: a blind session shows the texts as they are after normalisation.
    """

    run: AuditRun
    log: VerdictLog
    blind: bool
    rater: str
    suggestions: Mapping[str, Suggestion] | None
    token: str = field(repr=False)
    normalised: bool = False

    @cached_property
    def ids(self) -> frozenset[str]:
        """Of the clips that can be judged here."""
        return frozenset(clip.prediction.id for clip in self.run.clips)

    @cached_property
    def alike(self) -> frozenset[str]:
        """Clips whose texts a blind session shows alike: which of the two is right would be decided by the order alone."""
        normaliser = self.run.normaliser if self.normalised else None
        shown = {clip.prediction.id: blind_texts(self.run.fingerprint, "", clip, normaliser) for clip in self.run.clips}
        return frozenset(id_ for id_, (x, y) in shown.items() if x == y)

    def page(self) -> str:
        """The page, with the token in it."""
        return (PAGE / "index.html").read_text(encoding="utf-8").replace(_TOKEN_PLACE, _TOKEN_PLACE.replace('""', f'"{self.token}"'))

    def clips(self, rater: str) -> bytes:
        """The answer with all clips, compressed."""
        rows = clip_rows(self.run, blind=self.blind, rater=rater, suggestions=self.suggestions, normalised=self.normalised)
        return gzip.compress(_json({"clips": rows}), _GZIP_LEVEL)

    def file(self, index: int, n: int) -> Path:
        """An audio file of a clip: nothing that the run does not name can be asked for."""
        clip = self.run.clips[index] if 0 <= index < len(self.run.clips) else None
        if clip is None or not 0 <= n < len(clip.audio):
            raise HTTPException(404, "the run has no such audio")
        if not clip.path or not clip.path[n].is_file():
            raise HTTPException(404, f"{clip.prediction.id}: audio missing")
        return clip.path[n]

    def judge(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Check and keep a verdict that the page sent. The answer has the one in force: another one, where this had arrived before."""
        rater = check_rater(body.get("rater"))
        row = dict(body)
        if self.blind:
            choice = body.get("choice")
            if not isinstance(choice, str) or choice not in CHOICES or body.get("verdict") is not None:
                raise DataError(f'in a blind session a verdict is a "choice": one of {", ".join(CHOICES)}')
            row["verdict"] = category_of(choice, blind_order(self.run.fingerprint, rater, str(body.get("id"))))
            if choice in ("x", "y") and body.get("id") in self.alike:
                raise DataError("X and Y are the same, so that neither alone can be right: choose another verdict")
        elif body.get("choice") is not None:
            raise DataError('only in a blind session a verdict is a "choice": send "verdict"')
        verdict = read_verdict(row, "verdict", rater, self.ids, self.blind)
        self.log.append(verdict)
        return {"ok": True, "verdict": self._in_force(rater, verdict.id)}

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take back a rater's last verdict; what was said of that clip before is in force again."""
        rater = check_rater(body.get("rater"))
        gone = self.log.undo(rater, read_event_id(body, "undo"))
        return {"id": gone and gone.id, "verdict": gone and self._in_force(rater, gone.id)}

    def _in_force(self, rater: str, id: str) -> dict[str, Any] | None:
        return next((verdict_row(verdict, self.blind) for verdict in self.log.current(rater) if verdict.id == id), None)


def create_app(
    run: AuditRun,
    log: VerdictLog,
    *,
    blind: bool = False,
    rater: str = "",
    suggestions: Mapping[str, Suggestion] | None = None,
    token: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
    in_url: bool = False,
    normalised: bool = False,
) -> FastAPI:
    """The review of a run as an application.

    Args:
        run: what is judged.
        log: where verdicts go.
        blind: no answer tells which text is the label.
        rater: the name that the page begins with; empty where it asks.
        suggestions: likely label errors by id; not told in a blind session.
        token: what the page sends with each verdict; drawn at random by default.
        hosts: names under which it may be asked; `*` for any.
        in_url: other machines can ask too, so every request needs the token.
        normalised: a blind session shows the texts as they are after normalisation.
    """
    session = Session(run, log, blind, rater, suggestions, token or secrets.token_urlsafe(24), normalised)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Guard, token=session.token, in_url=in_url)
    _answer_errors(app)
    _serve_page(app, session)
    _serve_run(app, session)
    _serve_audio(app, session)
    _take_verdicts(app, session)
    _serve_results(app, session)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Every error as one line, `{"detail": ...}`."""

    def refused(request: Request, error: Exception) -> Response:
        status = 500 if isinstance(error, UnsavedError) else 422 if isinstance(error, AudioError) else 400
        return _answer({"detail": " ".join(str(error).split())}, status)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        return _answer({"detail": error.detail}, error.status_code)

    def unfit(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _answer({"detail": "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())}, 400)

    app.add_exception_handler(AudiograftError, refused)
    app.add_exception_handler(StarletteHTTPException, http)
    app.add_exception_handler(RequestValidationError, unfit)


def _serve_page(app: FastAPI, session: Session) -> None:
    static = {path.name: path for path in PAGE.iterdir() if path.suffix in _TYPES}

    @app.get("/")
    def page() -> Response:
        return Response(session.page(), media_type="text/html")

    @app.get("/static/{name}")
    def part_of_page(name: str) -> Response:
        if name not in static:
            raise HTTPException(404, "the page has no such part")
        return FileResponse(static[name], media_type=_TYPES[static[name].suffix])


def _serve_run(app: FastAPI, session: Session) -> None:
    compressed = lru_cache(maxsize=4)(session.clips)
    if session.rater or not session.blind:
        compressed(session.rater)  # before the first rater waits for it

    @app.get("/api/run")
    def run() -> Response:
        has_suggestions = session.suggestions is not None
        row = run_row(session.run, blind=session.blind, rater=session.rater, has_suggestions=has_suggestions, normalised=session.normalised)
        return _answer(row)

    @app.get("/api/clips")
    def clips(request: Request, rater: str = "") -> Response:
        # Without X and Y the answer is the same for all.
        content = compressed(check_rater(rater) if session.blind else session.rater)
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return Response(gzip.decompress(content), media_type="application/json")
        return Response(content, media_type="application/json", headers={"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})

    @app.get("/api/verdicts")
    def verdicts(rater: str = "") -> Response:
        given = session.log.current(check_rater(rater)) if rater else []
        return _answer({"verdicts": verdict_rows(given, session.blind), "raters": session.log.raters()})


def _serve_audio(app: FastAPI, session: Session) -> None:
    @app.get("/audio/{index}")
    def audio(request: Request, index: int, n: int = 0) -> Response:
        file = session.file(index, n)
        kind = media_type(file)
        # Nothing is kept by the browser: at the same address another run, or another sample, has another clip.
        return _part(wav_bytes(file), request.headers.get("Range")) if kind is None else FileResponse(file, media_type=kind)

    @app.get("/api/peaks/{index}")
    def peaks(index: int, n: int = 0) -> Response:
        return _answer(clip_peaks(session.file(index, n)).as_row())


def _take_verdicts(app: FastAPI, session: Session) -> None:
    @app.post("/api/verdicts")
    async def judge(request: Request) -> Response:
        return _answer(await run_in_threadpool(session.judge, await _body(request, session.token)))

    @app.post("/api/undo")
    async def undo(request: Request) -> Response:
        return _answer(await run_in_threadpool(session.undo, await _body(request, session.token)))


def _serve_results(app: FastAPI, session: Session) -> None:
    patterns = lru_cache(maxsize=1)(lambda: patterns_row(session.run))
    answers: dict[str, Callable[[], Response]] = {
        "results": lambda: _answer(results_row(session.run, session.log.current(), session.suggestions)),
        "patterns": lambda: _answer(patterns()),
        "verdicts.csv": lambda: _download(verdicts_csv(session.run, session.log.current()), "verdicts.csv", "text/csv"),
        "verdicts.jsonl": lambda: _download(_lines(session), "verdicts.jsonl", "application/x-ndjson"),
    }

    def serve(name: str, answer: Callable[[], Response]) -> None:
        @app.get(f"/api/{name}")
        def told() -> Response:
            if session.blind:
                raise HTTPException(403, _BLIND_REFUSAL)
            return answer()

    for name, answer in answers.items():
        serve(name, answer)


def _lines(session: Session) -> str:
    """The verdicts in force in the format of the log."""
    return "".join(json.dumps(verdict.as_row(session.run.fingerprint)) + "\n" for verdict in session.log.current())


async def _body(request: Request, token: str) -> dict[str, Any]:
    """What a page of ours sent; from any other page the browser would not let the token and the content type through."""
    if not is_token(request.headers.get(TOKEN_HEADER), token):
        raise HTTPException(403, f"{TOKEN_HEADER} is missing or old: reload the page")
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON, with Content-Type: application/json")
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"more than {_MAX_BODY_BYTES} bytes: shorten the text")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "not valid JSON") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "send a JSON object")
    return body


def _part(content: bytes, asked: str | None) -> Response:
    """A WAV, or the one range of its bytes that was asked for; several at once are answered with all, as the standard allows."""
    told = {"Accept-Ranges": "bytes"}
    found = _RANGE.fullmatch(asked.strip()) if asked else None
    if found is None or found[1] == found[2] == "":
        return Response(content, media_type="audio/wav", headers=told)
    if found[1]:
        start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    else:
        start, end = max(len(content) - int(found[2]), 0), len(content) - 1
    if start > end:
        return Response(status_code=416, headers=told | {"Content-Range": f"bytes */{len(content)}"})
    told["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return Response(content[start : end + 1], 206, media_type="audio/wav", headers=told)


def _answer(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(_json(value), status, media_type="application/json")


def _download(text: str, name: str, kind: str) -> Response:
    content = text.encode("utf-8", errors="backslashreplace")
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _json(value: Mapping[str, Any]) -> bytes:
    """In ASCII: half of a surrogate pair, which a text from outside can hold, is nothing that UTF-8 can."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
