"""`push` against a stand-in of the hub that speaks what huggingface_hub asks for and keeps what it is sent."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import builders
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

import audiograft
from audiograft.cli import main
from audiograft.model.checkpoint import save_graft
from audiograft.model.push import model_files, push
from audiograft.types import AudiograftError, ConfigError

# huggingface_hub 2.4 hands httpx a file in a way that httpx wants to give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_" + "Se" * 17
REPO = "anna/listener"


class Hub:
    """A stand-in of the hub's API.

    Attributes:
        files: folder of what the repository holds.
        denies: (part of a path, status) that is answered in place of anything else.
        requests: method and path of all requests.
        commits: their summaries.
    """

    def __init__(self, files: Path) -> None:
        self.files = files
        self.denies: tuple[str, int] | None = None
        self.private: bool | None = None
        self.requests: list[str] = []
        self.commits: list[str] = []
        self.blobs: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                chunked = self.headers.get("Transfer-Encoding") == "chunked"
                body = b"".join(self.chunks()) if chunked else self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, value = hub.respond(self.command, self.path, body, self.headers.get("Authorization"))
                payload = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def chunks(self) -> Iterator[bytes]:
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            do_GET = do_POST = do_PUT = answer  # noqa: N815  # http.server's names

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def respond(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        path = path.partition("?")[0]
        if method == "PUT" and path.startswith("/blob/"):  # a storage URL, which is signed and gets no token
            self.blobs[hashlib.sha256(body).hexdigest()] = body
            return 200, {}
        if authorization != f"Bearer {TOKEN}":
            return 401, {"error": f"Invalid token {authorization}"}
        if self.denies and self.denies[0] in path:
            return self.denies[1], {"error": f"denied to {authorization}"}
        if path == "/api/repos/create":
            if self.private is not None:
                return 409, {"error": "You already created this model repo", "url": f"{self.url}/{REPO}"}
            self.private = json.loads(body).get("visibility") == "private"
            return 200, {"url": f"{self.url}/{REPO}"}
        if path == "/api/validate-yaml":
            return (200, {}) if yaml.safe_load(json.loads(body)["content"].split("---")[1]) else (400, {"errors": []})
        if path == f"/api/models/{REPO}":
            return 200, {"id": REPO, "private": self.private, "siblings": [{"rfilename": name} for name in self.listing()]}
        return self.upload(path, body)

    def upload(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == f"/api/models/{REPO}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            return 200, {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
        if path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            return 200, {"objects": [{**item, "actions": {"upload": {"href": f"{self.url}/blob/{item['oid']}"}}} for item in objects]}
        assert path == f"/api/models/{REPO}/commit/main", path
        for line in map(json.loads, body.splitlines()):
            self.apply(line["key"], line["value"])
        return 200, {"commitUrl": f"{self.url}/{REPO}/commit/c0ffee", "commitOid": "c0ffee"}

    def apply(self, key: str, value: dict[str, Any]) -> None:
        """One line of a commit."""
        if key == "header":
            self.commits.append(value["summary"])
            return
        target = self.files / value["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if key == "deletedFile":
            target.unlink()
        else:
            target.write_bytes(self.blobs[value["oid"]] if key == "lfsFile" else base64.b64decode(value["content"]))

    def listing(self) -> list[str]:
        return sorted(path.relative_to(self.files).as_posix() for path in self.files.rglob("*") if path.is_file())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    disable_progress_bars()
    yield stand_in
    enable_progress_bars()
    stand_in.close()


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("model")
    save_graft(*builders.graft(), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path, model_bytes: dict[str, bytes]) -> Path:
    """The output of a training run: a model among everything else that a run leaves."""
    out = tmp_path / "finetune"
    (out / "checkpoint-6").mkdir(parents=True)
    for name, content in model_bytes.items():
        (out / name).write_bytes(content)
    for name in ("optimizer.pt", "trained.safetensors", "trainer_state.json", "model.safetensors"):
        (out / "checkpoint-6" / name).write_text("not for the hub")
    for name in ("clip.wav", "rejected.jsonl", "bad-batch.json", "secrets.json", ".env", "training_args.bin"):
        (out / name).write_text("not for the hub")
    return out


def evaluation_of(folder: Path, run: Path) -> Path:
    """A run folder of the model in `folder`, as `audiograft evaluate` leaves it."""
    manifest = run.parent / "test" / "manifest.jsonl"
    for made in (run, manifest.parent):
        made.mkdir(parents=True, exist_ok=True)
    manifest.write_text('{"id": "1", "audio": "1.wav", "text": "one"}\n')
    interval = {"low": 0.05, "high": 0.2, "confidence": 0.95}
    metrics = {"wer": {"rate": 0.125, "interval": interval}, "n_clips": 40, "failed": [], "normaliser": {"name": "lower", "version": "1"}}
    fingerprint = hashlib.sha256(manifest.read_bytes()).hexdigest()
    date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    about = {"model": str(folder), "manifest": str(manifest), "manifest_sha256": fingerprint, "prompt": "Transcribe.", "date": date}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "run.json").write_text(json.dumps(about))
    return run


def test_what_loads_goes_up_and_nothing_else(hub: Hub, folder: Path, model_bytes: dict[str, bytes]) -> None:
    report = push(folder, REPO)
    assert hub.listing() == sorted({*model_bytes, "README.md"}) == sorted(report.files)
    assert {name: (hub.files / name).read_bytes() for name in model_bytes} == model_bytes
    assert hub.commits == ["Upload finetune with audiograft"]
    assert (report.commit, report.url, hub.private) == ("c0ffee", f"{hub.url}/{REPO}", False)


def test_the_uploaded_files_load_and_give_the_same_text(hub: Hub, folder: Path) -> None:
    push(folder, REPO)
    clip = (builders.tone(0.5), 16_000)
    before, after = (audiograft.load(str(place)).transcribe(clip, max_new_tokens=8).text for place in (folder, hub.files))
    assert before == after


def test_an_adapter_folder_goes_up_with_its_lora_folders(hub: Hub, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "projector.safetensors")
    (folder / "adapter.json").write_text(json.dumps({"format": 1, "base": {"model": "anna/base"}, "trained": []}))
    for part in ("lora-language_model", "lora-audio_tower"):
        (folder / part).mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors", "README.md", "optimizer.pt"):
            (folder / part / name).write_text("{}")
    push(folder, REPO)
    assert {name for name in hub.listing() if "/" in name} == {
        f"lora-{part}/{name}" for part in ("language_model", "audio_tower") for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    assert "base_model:\n- anna/base\nbase_model_relation: adapter\n" in (hub.files / "README.md").read_text()


def test_an_adapter_of_an_adapter_goes_up_with_the_base_that_others_have(hub: Hub, folder: Path, tmp_path: Path) -> None:
    parts = {"audio_encoder": "tiny-encoder", "language_model": "anna/small-lm"}
    (tmp_path / "align").mkdir()
    under = {
        "base": {"graft": parts},
        "trained": ["projector.last.weight"],
        "base_sha256": {"audio_encoder": "ab"},
        "revision": {"language_model": "cd"},
    }
    (tmp_path / "align" / "adapter.json").write_text(json.dumps(under))
    own = {"base": {"model": str(tmp_path / "align")}, "trained": ["projector.last.weight", "language_model.q.lora_A.weight"]}
    (folder / "adapter.json").write_text(json.dumps(own))
    push(folder, REPO)
    uploaded = json.loads((hub.files / "adapter.json").read_text())
    assert uploaded["base"] == {"graft": parts}
    assert uploaded["trained"] == own["trained"]
    assert (uploaded["base_sha256"], uploaded["revision"], uploaded["relative"]) == ({"audio_encoder": "ab"}, {"language_model": "cd"}, {})
    assert json.loads((folder / "adapter.json").read_text()) == own
    assert "base_model:\n- anna/small-lm\n" in (hub.files / "README.md").read_text()
    # What it needs of the adapter beneath would be missing, and LoRA does not replace LoRA, which was merged before it.
    for trained, below, name in (
        ([own["trained"][1]], under["trained"], "projector.last.weight"),
        (own["trained"], own["trained"], own["trained"][1]),
    ):
        (tmp_path / "align" / "adapter.json").write_text(json.dumps({**under, "trained": below}))
        (folder / "adapter.json").write_text(json.dumps({**own, "trained": trained}))
        with pytest.raises(ConfigError, match=rf"needs {name} of .*align too: audiograft merge it"):
            push(folder, REPO)


def test_an_adapter_that_needs_a_folder_of_this_machine_stays(folder: Path, tmp_path: Path) -> None:
    (folder / "adapter.json").write_text(json.dumps({"base": {"model": str(tmp_path / "align")}, "trained": []}))
    with pytest.raises(ConfigError, match="which nobody else has: audiograft merge it"):
        push(folder, REPO, dry_run=True)


def test_the_card_goes_up_with_the_figures_of_the_named_run(hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluation_of(folder, tmp_path / "runs" / "on-test")
    options = ["--run", str(run), "--license", "apache-2.0", "--private", "--message", "First one", "--base-model", "openai/whisper-small"]
    assert main(["push", str(folder), "--repo", REPO, *options]) == 0
    card = (hub.files / "README.md").read_text()
    assert card == (folder / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == "apache-2.0"
    assert metadata["base_model"] == ["openai/whisper-small"]
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 12.5
    assert "| word error rate | 12.50 % | 5.00 % to 20.00 % (95 %) | 40 |" in card
    assert (hub.commits, hub.private) == (["First one"], True)
    printed = capsys.readouterr().out
    assert f"uploaded to {hub.url}/{REPO}, commit c0ffee" in printed
    assert re.search(r"[\d,]+ bytes +model\.safetensors", printed)


@pytest.mark.parametrize("denies", [None, ("/api/repos/create", 403), ("/preupload/", 403), ("/commit/", 500)])
def test_the_token_is_nowhere(
    hub: Hub, folder: Path, denies: tuple[str, int] | None, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    if denies and denies[0] == "/api/repos/create":
        hub.denies = ("/api/", 403)  # the client looks whether there is such a repository before it gives up
    else:
        hub.denies = denies
    with caplog.at_level(logging.DEBUG):
        assert main(["push", str(folder), "--repo", REPO]) == (2 if denies else 0)
    printed = capfd.readouterr()
    for text in (printed.out, printed.err, caplog.text):
        assert TOKEN not in text
    for place in (folder, hub.files):
        assert not any(TOKEN.encode() in path.read_bytes() for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "does not accept the token"), (403, "may not write there"), (404, "no such repository"), (409, "push again"), (500, "500")],
)
def test_a_refusal_of_the_hub_is_one_line(hub: Hub, folder: Path, status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    hub.denies = ("/commit/", status)
    assert main(["push", str(folder), "--repo", REPO]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {REPO}: ")
    assert says in line
    assert hub.listing() == []


def test_no_network_no_token_and_offline_are_one_line_each(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AudiograftError, match="^anna/listener: nothing was uploaded, since HF_HUB_OFFLINE is set: unset it$"):
        push(folder, REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(AudiograftError, match=r"^anna/listener: the upload failed \(ConnectError: .*\): check the network and push again$"):
        push(folder, REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="^no Hugging Face token: set HF_TOKEN, or log in with `hf auth login`; it needs write access$"):
        push(folder, REPO)
    assert hub.requests == []


def test_a_dry_run_needs_neither_token_nor_network_and_writes_nothing(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(folder), "--repo", REPO, "--dry-run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["files"])[1:] == model_files(folder)
    assert report["card"].startswith("---\nlibrary_name: audiograft\n")
    assert main(["push", str(folder), "--repo", REPO, "--dry-run"]) == 0
    assert f"nothing was uploaded to {REPO}" in capsys.readouterr().out
    assert hub.requests == []
    assert not (folder / "README.md").exists()


def test_ones_own_card_stays_until_it_may_be_overwritten(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = "---\nlicense: mit\n---\n# Mine\n"
    (folder / "README.md").write_text(own)
    assert main(["push", str(folder), "--repo", REPO]) == 0
    assert "README.md is your own" in capsys.readouterr().out
    assert (folder / "README.md").read_text() == (hub.files / "README.md").read_text() == own
    assert not push(folder, REPO, overwrite_card=True).own_card
    generated = (folder / "README.md").read_text()
    assert generated == (hub.files / "README.md").read_text() != own
    # What audiograft wrote is written anew, unless it was edited since.
    assert not push(folder, REPO).own_card
    (folder / "README.md").write_text(generated.replace("# listener", "# My listener"))
    assert push(folder, REPO).own_card
    assert "# My listener" in (hub.files / "README.md").read_text()


def test_weights_of_an_older_model_are_removed_and_other_files_stay(hub: Hub, folder: Path) -> None:
    push(folder, REPO)
    for name in ("model-00001-of-00002.safetensors", "notes.md"):
        (hub.files / name).write_text("old")
    report = push(folder, REPO)
    assert report.removed == ("model-00001-of-00002.safetensors",)
    assert "notes.md" in hub.listing()
    assert "model-00001-of-00002.safetensors" not in hub.listing()


def test_nothing_private_goes_into_a_repository_that_is_public(hub: Hub, folder: Path) -> None:
    push(folder, REPO)
    with pytest.raises(ConfigError, match="is there already and is public"):
        push(folder, REPO, private=True)
    assert len(hub.commits) == 1


def test_a_token_in_a_file_stops_the_upload(hub: Hub, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "note": f"log in with {TOKEN}"}))
    with pytest.raises(ConfigError, match="your Hugging Face token") as caught:
        push(folder, REPO)
    assert TOKEN not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize("repo", ["listener", "a/b/c", "anna/", "/x", "anna/../x", "anna/-x", "https://huggingface.co/anna"])
def test_a_name_that_is_no_repository_is_refused(folder: Path, repo: str) -> None:
    with pytest.raises(ConfigError, match="is not OWNER/NAME"):
        push(folder, repo, dry_run=True)


def test_folders_without_a_whole_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        model_files(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"has no config.json and no adapter.json"):
        model_files(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="has no weights"):
        model_files(tmp_path)


def test_figures_of_another_model_or_of_older_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    run = evaluation_of(tmp_path / "other", tmp_path / "runs" / "on-test")
    with pytest.raises(ConfigError, match="is a run of the model"):
        push(folder, REPO, [run], dry_run=True)
    evaluation_of(folder, run)
    later = time.time() + 60
    os.utime(folder / "model.safetensors", (later, later))
    with pytest.raises(ConfigError, match=r"is older than .*model.safetensors"):
        push(folder, REPO, [run], dry_run=True)
