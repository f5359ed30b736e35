"""The review's server: what it answers, what it keeps, and what it refuses."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from reviewed import HOSTILE, mistaken, write_run

from audiograft.audit.blind import blind_order
from audiograft.audit.log import VerdictLog
from audiograft.audit.run import load_run
from audiograft.audit.server import create_app
from audiograft.audit.suggestions import suggest

TOKEN = "token-of-the-test"
POSTED = {"X-Audiograft-Token": TOKEN, "Content-Type": "application/json"}


class Client:
    """Asks an application, without a network."""

    def __init__(self, folder: Path, host: str = "127.0.0.1:8000", **options: Any) -> None:
        self.run = load_run(folder)
        self.log = VerdictLog(self.run.verdicts_path, self.run.fingerprint, {clip.prediction.id for clip in self.run.clips})
        self.app = create_app(self.run, self.log, token=TOKEN, **options)
        self.host = host

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=f"http://{self.host}") as client:
                return await client.request(method, path, **options)

        return asyncio.run(asked())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, headers: dict[str, str] = POSTED) -> httpx.Response:
        return self.ask("POST", path, content=body if isinstance(body, bytes) else json.dumps(body), headers=headers)

    def judge(self, id_: str, verdict: str, rater: str = "ann", **more: Any) -> httpx.Response:
        return self.post("/api/verdicts", {"rater": rater, "id": id_, "verdict": verdict, **more})


def refused(response: httpx.Response, status: int) -> str:
    """The one line of an error."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    line = response.json()["detail"]
    assert line
    assert "\n" not in line
    return str(line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", mistaken(6), token_logprobs=[[-0.2, -0.4]] * 6, source=["talks"] * 6)


@pytest.fixture
def client(folder: Path) -> Client:
    return Client(folder)


def test_the_page_carries_the_token_and_its_parts_are_served(client: Client) -> None:
    page = client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'<meta name="audiograft-token" content="{TOKEN}">' in page.text
    parts = [part.split('"')[1] for part in page.text.split("<script src=")[1:]]
    assert "/static/app.js" in parts
    for part in (*parts, "/static/style.css"):
        assert client.get(part).headers["Content-Type"] in ("text/javascript; charset=utf-8", "text/css; charset=utf-8")


def test_every_answer_limits_what_the_browser_may_do(client: Client) -> None:
    for path in ("/", "/static/app.js", "/api/run", "/api/clips", "/audio/0", "/nothing", "/api/undo"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_the_run_and_its_clips(folder: Path) -> None:
    found = suggest(load_run(folder))
    client = Client(folder, suggestions=found, rater="ann")
    run = client.get("/api/run").json()
    assert (run["name"], run["n_clips"], run["blind"], run["rater"], run["has_suggestions"]) == ("run", 6, False, "ann", True)
    assert [one["key"] for one in run["categories"]] == ["label_noise", "model_error", "ambiguous", "normalisation", "perfect"]
    clips = client.get("/api/clips").json()["clips"]
    assert [clip["i"] for clip in clips] == list(range(6))
    for row, clip in zip(clips, client.run.clips, strict=True):
        assert (row["ref"], row["hyp"], row["wer"]) == (clip.prediction.reference, clip.prediction.hypothesis, clip.wer)
        assert row["diff"] == [[edit.kind, edit.reference, edit.hypothesis] for edit in clip.diff]
        assert (row["dur"], row["speaker"], row["source"], row["parts"], row["kind"]) == (1.5, clip.prediction.speaker, "talks", 1, clip.kind)
        suggestion = found.get(row["id"])
        assert row["suspicion"] == (suggestion and suggestion.score)
        assert row["rank"] == (list(found).index(row["id"]) + 1 if suggestion else None)


def test_clips_are_sent_compressed_where_that_is_understood(client: Client) -> None:
    packed = client.get("/api/clips", **{"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    plain = client.get("/api/clips", **{"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()


def test_a_verdict_is_on_the_disk_before_the_answer_and_seen_by_all(client: Client, folder: Path) -> None:
    said = {"corrected": "what is said", "tags": ["name"], "note": "faint"}
    answer = client.judge("clip-00001", "label_noise", **said)
    assert answer.json()["ok"] is True
    assert json.loads((folder / "verdicts.jsonl").read_text())["corrected"] == "what is said"
    row = client.get("/api/verdicts?rater=ann").json()["verdicts"]["clip-00001"]
    assert row == answer.json()["verdict"]
    assert {**row, "time": None} == {"verdict": "label_noise", "choice": None, **said, "time": None}
    assert client.get("/api/verdicts?rater=bob").json() == {"verdicts": {}, "raters": ["ann"]}


def test_undo_brings_back_what_stood_before(client: Client) -> None:
    for category in ("perfect", "ambiguous"):
        client.judge("clip-00000", category)
    undone = client.post("/api/undo", {"rater": "ann"}).json()
    assert (undone["id"], undone["verdict"]["verdict"]) == ("clip-00000", "perfect")
    assert client.post("/api/undo", {"rater": "ann"}).json() == {"id": "clip-00000", "verdict": None}
    assert client.post("/api/undo", {"rater": "ann"}).json() == {"id": None, "verdict": None}


def test_what_is_sent_again_is_kept_once_and_answered_with_what_is_in_force(client: Client, folder: Path) -> None:
    first = client.judge("clip-00000", "perfect", event_id="e1").json()
    assert client.judge("clip-00000", "perfect", event_id="e1").json() == first
    client.judge("clip-00000", "ambiguous", event_id="e2")
    assert client.judge("clip-00000", "perfect", event_id="e1").json()["verdict"]["verdict"] == "ambiguous"
    for _ in range(2):
        undone = client.post("/api/undo", {"rater": "ann", "event_id": "u1"}).json()
        assert (undone["id"], undone["verdict"]["verdict"]) == ("clip-00000", "perfect")
    client.post("/api/undo", {"rater": "ann", "event_id": "u2"})
    assert client.judge("clip-00000", "perfect", event_id="e1").json() == {"ok": True, "verdict": None}
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 4
    for bad in (7, "", "x" * 65):
        assert '"event_id" must be' in refused(client.judge("clip-00001", "perfect", event_id=bad), 400)


def test_neither_of_two_texts_that_look_alike_is_right(tmp_path: Path) -> None:
    """The order of X and Y alone would decide what the verdict means."""
    folder = write_run(tmp_path / "run", [("One, two", "one, TWO"), ("one", "one"), ("one", "two")])
    for normalised, alike in ((False, ["clip-00001"]), (True, ["clip-00000", "clip-00001"])):
        client = Client(folder, blind=True, normalised=normalised)
        for id_ in ("clip-00000", "clip-00001", "clip-00002"):
            for choice in "xy":
                answer = client.post("/api/verdicts", {"rater": "ann", "id": id_, "choice": choice})
                if id_ in alike:
                    assert "X and Y are the same" in refused(answer, 400)
                else:
                    assert answer.status_code == 200
            assert client.post("/api/verdicts", {"rater": "ann", "id": id_, "choice": "neither"}).status_code == 200


def test_a_rater_can_say_that_nothing_is_said(client: Client) -> None:
    for typed, kept in (("", ""), ("  ", ""), (None, None)):
        assert client.judge("clip-00000", "label_noise", corrected=typed).json()["verdict"]["corrected"] == kept


def test_browsers_keep_no_clip(client: Client, decoded: tuple[Client, bytes]) -> None:
    """At the same address another run has another clip."""
    for answer in (client.get("/audio/2"), client.get("/audio/2", Range="bytes=0-9"), decoded[0].get("/audio/0"), client.get("/api/peaks/0")):
        assert answer.headers["Cache-Control"] == "no-store"


def test_two_servers_on_one_machine_have_their_own_cookies(folder: Path) -> None:
    names = set()
    for token in ("first", "second"):
        run = load_run(folder)
        client = Client(folder)
        client.app = create_app(run, VerdictLog(run.verdicts_path, run.fingerprint), token=token, hosts=("*",), in_url=True)
        cookie = client.get(f"/?token={token}").headers["Set-Cookie"].partition(";")[0]
        assert client.get("/api/run", Cookie=f"audiograft-other=x; {cookie}").status_code == 200
        names.add(cookie.partition("=")[0])
    assert len(names) == 2


def test_two_raters_judge_at_once(client: Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [(f"clip-{row:05d}", category, rater) for row in range(6) for rater, category in (("ann", "perfect"), ("bob", "model_error"))]
        assert {answer.status_code for answer in pool.map(lambda one: client.judge(*one), asked)} == {200}
    for rater, category in (("ann", "perfect"), ("bob", "model_error")):
        rows = client.get(f"/api/verdicts?rater={rater}").json()["verdicts"]
        assert len(rows) == 6
        assert {row["verdict"] for row in rows.values()} == {category}
    found = client.get("/api/results").json()
    assert set(found["raters"]) == {"ann", "bob"}
    assert len(found["disagreements"]) == 6
    lines = client.get("/api/verdicts.jsonl")
    assert len(lines.text.splitlines()) == 12
    assert client.get("/api/verdicts.csv").text.count("model_error") == 6
    assert client.get("/api/patterns").json()["totals"]["substitutions"] > 0


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"rater": "ann", "id": "other", "verdict": "perfect"}, '"id" must be that of a clip of the run, not "other"'),
        ({"rater": "ann", "verdict": "perfect"}, '"id" must be'),
        ({"rater": "ann", "id": ["clip-00000"], "verdict": "perfect"}, '"id" must be'),
        ({"rater": "ann", "id": "clip-00000", "verdict": "fine"}, '"verdict" must be one of label_noise'),
        ({"rater": "ann", "id": "clip-00000"}, '"verdict" must be one of label_noise'),
        ({"rater": "ann", "id": "clip-00000", "choice": "x"}, 'only in a blind session a verdict is a "choice"'),
        ({"rater": "ann", "id": "clip-00000", "verdict": "perfect", "tags": ["nice"]}, '"tags" must be one of'),
        ({"rater": "ann", "id": "clip-00000", "verdict": "perfect", "note": ["x"]}, '"note" must be a text'),
        ({"rater": "ann", "id": "clip-00000", "verdict": "perfect", "corrected": "x" * 20_001}, '"corrected" must be a text of at most'),
        ({"rater": "a\u202eb", "id": "clip-00000", "verdict": "perfect"}, "rater's name"),
        ({"rater": "x" * 65, "id": "clip-00000", "verdict": "perfect"}, "at most 64 characters"),
        ({"id": "clip-00000", "verdict": "perfect"}, "give the rater a name"),
        ([], "send a JSON object"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_verdict_that_does_not_fit_is_refused_and_nothing_is_kept(client: Client, body: Any, line: str) -> None:
    assert line in refused(client.post("/api/verdicts", body), 400)
    assert not client.log.path.exists()


@pytest.mark.parametrize("path", ["/api/verdicts", "/api/undo"])
def test_only_our_own_page_can_post(client: Client, path: str) -> None:
    body = {"rater": "ann", "id": "clip-00000", "verdict": "perfect"}
    json_only = {"Content-Type": "application/json"}
    assert "X-Audiograft-Token" in refused(client.post(path, body, json_only), 403)
    refused(client.post(path, body, json_only | {"X-Audiograft-Token": "guess"}), 403)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        refused(client.post(path, body, {"X-Audiograft-Token": TOKEN, "Content-Type": kind}), 415)
    refused(client.post(path, b'{"rater": "' + b"x" * 300_000 + b'"}'), 413)
    refused(client.get("/api/undo"), 405)
    assert not client.log.path.exists()
    fine = {**POSTED, "Content-Type": "application/json; charset=utf-8"}
    assert client.post("/api/verdicts", body, fine).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "192.168.0.1", "127.0.0.2"])
def test_other_host_names_are_refused(folder: Path, host: str) -> None:
    client = Client(folder, host)
    for path in ("/", "/api/clips", "/audio/0"):
        assert client.get(path).status_code == 400
        assert "clip-0" not in client.get(path).text
    assert client.judge("clip-00000", "perfect").status_code == 400
    assert not client.log.path.exists()


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8000"])
def test_this_machines_own_names_are_taken(folder: Path, host: str) -> None:
    assert Client(folder, host).get("/api/run").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/%2e%2e/run.py", "/static/index.html", "/static//etc/passwd", "/static/",
        "/audio/..%2f..%2fetc%2fpasswd", "/audio/%2fetc%2fpasswd", "/audio/0%00", "/audio/6", "/audio/-1", "/audio/0?n=1", "/audio/0?n=-1",
        "/audio/99999999999999999999999", "/audio/0/../../run.json", "/api/peaks/6", "/predictions.jsonl", "/verdicts.jsonl", "//etc/passwd",
        "/docs", "/openapi.json", "/redoc", "/audio/1e0", "/api/peaks/0?n=x",
    ],
)  # fmt: skip
def test_nothing_but_the_runs_clips_and_the_pages_parts_is_served(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code in (400, 404)
    refused(response, response.status_code)


def test_audio_is_sent_whole_and_in_parts(client: Client) -> None:
    content = client.run.clips[2].path[0].read_bytes()
    whole = client.get("/audio/2")
    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, content, "audio/wav")
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = client.get("/audio/2", Range="bytes=100-199")
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, content[100:200], f"bytes 100-199/{len(content)}")
    assert client.get("/audio/2", Range=f"bytes={len(content)}-").status_code == 416


@pytest.fixture
def decoded(tmp_path: Path) -> tuple[Client, bytes]:
    """A run whose clips no browser plays, and what the first is as WAV."""
    folder = write_run(tmp_path / "run", mistaken(2), audio=["a.aiff", ["a.aiff", "b.aiff"]])
    for name, level in (("a", 0.25), ("b", 0.5)):
        soundfile.write(folder / f"{name}.aiff", np.full(16_000, level, dtype=np.float32), 16_000)
    client = Client(folder)
    return client, client.get("/audio/0").content


def test_what_no_browser_plays_is_sent_as_wav(decoded: tuple[Client, bytes]) -> None:
    client, content = decoded
    samples, rate_hz = soundfile.read(io.BytesIO(content))
    assert (rate_hz, len(samples), samples[0]) == (16_000, 16_000, pytest.approx(0.25, abs=1e-4))
    other, _ = soundfile.read(io.BytesIO(client.get("/audio/1?n=1").content))
    assert other[0] == pytest.approx(0.5, abs=1e-4)
    assert client.get("/audio/0").headers["Content-Type"] == "audio/wav"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-", 0, None), ("bytes=10-19", 10, 20), ("bytes=-5", -5, None), ("bytes=0-99999999", 0, None), ("bytes=31000-", 31_000, None)],
)
def test_parts_of_what_was_decoded(decoded: tuple[Client, bytes], asked: str, start: int, end: int | None) -> None:
    client, content = decoded
    part = client.get("/audio/0", Range=asked)
    assert (part.status_code, part.content) == (206, content[start:end])
    first, last = start % len(content), (end or len(content)) - 1
    assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=99999999-", 416),
        ("bytes=5-2", 416),
        ("bytes=-0", 416),
        ("bytes=-", 200),
        ("bytes=0-1,4-5", 200),
        ("pages=1-2", 200),
        (f"bytes={'9' * 5000}-", 200),
    ],
)
def test_parts_that_there_are_not(decoded: tuple[Client, bytes], asked: str, status: int) -> None:
    client, content = decoded
    response = client.get("/audio/0", Range=asked)
    assert response.status_code == status
    assert len(response.content) == (len(content) if status == 200 else 0)


def test_peaks_and_audio_that_can_not_be_had(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", mistaken(4), audio=["clip-000.wav", "gone.wav", None, "bad.wav"])
    (folder / "bad.wav").write_bytes(b"RIFF no sound")
    client = Client(folder)
    peaks = client.get("/api/peaks/0").json()
    assert (len(peaks["peaks"]), max(peaks["peaks"]), peaks["duration_s"]) == (400, 255, 1.5)
    for what in ("audio", "api/peaks"):
        assert refused(client.get(f"/{what}/1"), 404) == "clip-00001: audio missing"
        assert refused(client.get(f"/{what}/2"), 404) == "the run has no such audio"
        assert "bad.wav" in refused(client.get(f"/{what}/3"), 422)
    assert client.get("/audio/0").status_code == 200
    (folder / "clip-000.wav").unlink()
    assert refused(client.get("/audio/0"), 404) == "clip-00000: audio missing"


def test_hostile_texts_come_back_as_the_same_data(tmp_path: Path) -> None:
    n = len(HOSTILE)
    folder = write_run(
        tmp_path / "run", [(text, f"{text} indeed") for text in HOSTILE], id=list(HOSTILE), speaker=list(HOSTILE), source=list(HOSTILE)
    )
    client = Client(folder, suggestions={})
    for path in ("/api/run", "/api/clips", "/api/verdicts?rater=ann", "/api/results", "/api/patterns"):
        assert client.get(path).headers["Content-Type"] == "application/json"
    clips = client.get("/api/clips").json()["clips"]
    assert [[clip[key] for key in ("id", "ref", "speaker", "source")] for clip in clips] == [[text] * 4 for text in HOSTILE]
    for text in HOSTILE:
        assert client.judge(text, "ambiguous", note=text, corrected=text).status_code == 200
    rows = client.get("/api/verdicts?rater=ann").json()["verdicts"]
    assert [(row["note"], row["corrected"]) for row in rows.values()] == [(text, text) for text in HOSTILE]
    assert client.get("/api/results").json()["clips"]["judged"] == n
    assert len(client.get("/api/verdicts.csv").text.splitlines()) > n
    assert "<script>window" not in client.get("/").text
    assert refused(client.judge("<b>", "perfect"), 400)


def test_a_blind_session_tells_nothing_of_which_text_is_which(folder: Path) -> None:
    openly = Client(folder)
    openly.judge("clip-00004", "label_noise", rater="ann")
    blind = Client(folder, blind=True, rater="ann", suggestions=suggest(openly.run))
    for row, choice in enumerate(("x", "y", "neither", "same")):
        answer = blind.post("/api/verdicts", {"rater": "ann", "id": f"clip-{row:05d}", "choice": choice})
        assert (answer.json()["verdict"]["verdict"], answer.json()["verdict"]["choice"]) == (None, choice)
    undone = blind.post("/api/undo", {"rater": "ann"})
    told = [blind.get(path).text for path in ("/api/run", "/api/clips?rater=ann", "/api/clips?rater=bob", "/api/verdicts?rater=ann")] + [undone.text]
    for text in told:
        for word in ("reference", "hypothesis", "conf", "suspicion", "reasons", "label_noise", "model_error", "kind"):
            assert word not in text, word
    for path in ("/api/results", "/api/patterns", "/api/verdicts.csv", "/api/verdicts.jsonl"):
        assert "blind" in refused(blind.get(path), 403)


def test_a_blind_choice_is_kept_with_what_it_means_and_each_rater_has_an_order_of_their_own(folder: Path) -> None:
    client = Client(folder, blind=True)
    for rater in ("ann", "bob"):
        rows = client.get(f"/api/clips?rater={rater}").json()["clips"]
        for row, clip in zip(rows, client.run.clips, strict=True):
            texts = (clip.prediction.reference, clip.prediction.hypothesis)
            is_reference = blind_order(client.run.fingerprint, rater, row["id"])
            assert (row["x"], row["y"]) == (texts if is_reference else texts[::-1])
            client.post("/api/verdicts", {"rater": rater, "id": row["id"], "choice": "x"})
            kept = client.log.current(rater)[-1]
            assert (kept.verdict, kept.choice, kept.blind) == ("model_error" if is_reference else "label_noise", "x", True)
    assert "give the rater a name" in refused(client.get("/api/clips"), 400)


@pytest.mark.parametrize("body", [{"verdict": "perfect"}, {"verdict": "perfect", "choice": "same"}, {"choice": "label_noise"}, {"choice": ["x"]}, {}])
def test_a_blind_session_takes_choices_alone(folder: Path, body: dict[str, Any]) -> None:
    client = Client(folder, blind=True)
    assert 'a verdict is a "choice"' in refused(client.post("/api/verdicts", {"rater": "ann", "id": "clip-00000", **body}), 400)


def test_other_machines_need_the_token_in_the_address(folder: Path) -> None:
    client = Client(folder, "review.example", hosts=("*",), in_url=True)
    for path in ("/", "/api/clips", "/audio/0", "/static/app.js", "/?token=guess", "/?token=%ff", "/?token="):
        assert "token" in refused(client.get(path), 403)
        assert "Set-Cookie" not in client.get(path).headers
    refused(client.judge("clip-00000", "perfect"), 403)
    opened = client.get(f"/?token={TOKEN}")
    assert opened.status_code == 200
    cookie = opened.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    given = {"Cookie": cookie.partition(";")[0]}
    assert client.get("/audio/0", **given).status_code == 200
    assert client.post("/api/verdicts", {"rater": "ann", "id": "clip-00000", "verdict": "perfect"}, POSTED | given).status_code == 200
    refused(client.get("/api/run", Cookie="audiograft-token=guess"), 403)


def test_a_verdict_that_can_not_be_saved_is_told_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("audiograft.audit.log.os.fsync", full)
    assert "could not be saved (No space left on device)" in refused(client.judge("clip-00000", "perfect"), 500)
    monkeypatch.undo()
    assert client.get("/api/verdicts?rater=ann").json()["verdicts"] == {}


def test_verdicts_of_another_run_that_came_meanwhile_are_refused_in_a_line(client: Client) -> None:
    client.judge("clip-00000", "perfect")
    client.log.path.write_text(client.log.path.read_text().replace(client.run.fingerprint, "f" * 16))
    assert "belongs to another run" in refused(client.get("/api/verdicts?rater=ann"), 400)


def test_ten_thousand_clips_are_answered_at_once(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(500)]
    texts = [(" ".join(draw.choices(words, k=12)), " ".join(draw.choices(words, k=12))) for _ in range(10_000)]
    client = Client(write_run(tmp_path / "run", texts))
    start_s = time.process_time()
    content = client.get("/api/clips").content
    assert time.process_time() - start_s < 0.5  # packed before the first page asks
    assert len(json.loads(content)["clips"]) == 10_000
    assert len(gzip.compress(content, 1)) < len(content) / 2
