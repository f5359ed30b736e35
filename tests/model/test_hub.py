"""Hub ids that can't be opened: one line that says what to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import builders
import huggingface_hub
import pytest
import transformers.utils.hub as transformers_hub
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from audiograft.model import graft, hub, load_graft, load_model
from audiograft.types import ConfigError


def response(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            GatedRepoError("401 Client Error.\nAccess is restricted.", response=response(401)),
            r"the model is gated \(HTTP 401\), .*accept its licence at https://huggingface.co/meta-llama/Llama-3.2-3B-Instruct and set HF_TOKEN",
        ),
        (HfHubHTTPError("403 Forbidden", response=response(403)), r"gated \(HTTP 403\), .*set HF_TOKEN"),
        (RepositoryNotFoundError("404 Client Error.\nNot found.", response=response(404)), "no model of this name, .*check the name"),
        (LocalEntryNotFoundError("Cannot find the file.\nOffline."), "the hub can't be reached, .*: pass a folder with the model instead"),
        (HfHubHTTPError("503 Server Error", response=response(503)), "HTTP 503, .*: try again"),
    ],
)
def test_the_hubs_errors_are_one_line_with_a_mend(monkeypatch: pytest.MonkeyPatch, tmp_path, error: Exception, message: str) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(transformers_hub, "hf_hub_download", refuse)
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", "wavlm")
    with pytest.raises(ConfigError, match=f"can't load meta-llama/Llama-3.2-3B-Instruct: .*{message}") as raised:
        graft(encoder, "meta-llama/Llama-3.2-3B-Instruct", tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_hub_id_without_network_asks_for_a_folder(tmp_path) -> None:
    """No stand-in: the tests run with HF_HUB_OFFLINE."""
    for opens in (lambda: load_graft("someone/some-graft"), lambda: graft("someone/some-graft", "tiny-lm", tmp_path / "out")):
        with pytest.raises(ConfigError, match="can't load someone/some-graft: the hub can't be reached, .*pass a folder") as raised:
            opens()
        assert "\n" not in str(raised.value)


class Client:
    """Counts what the hub is asked."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked: list[str] = []

    def head(self, address: str, timeout: float) -> None:
        self.asked.append(address)
        if self.error:
            raise self.error


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Any:
    """A network, as far as environment and cache say; nothing may go out but by the client that is given."""

    def put(error: Exception | None) -> Client:
        client = Client(error)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub, "get_session", lambda: client)
        monkeypatch.setattr(transformers_hub, "hf_hub_download", lambda *args, **kwargs: pytest.fail("the hub's library was asked"))
        hub._reach_hub.cache_clear()
        return client

    yield put
    hub._reach_hub.cache_clear()


def test_a_hub_that_does_not_answer_is_asked_once(online: Any, capfd: pytest.CaptureFixture[str]) -> None:
    client = online(OSError("[Errno -2] Name or service not known"))
    with pytest.raises(ConfigError) as raised:
        load_model("runs/merged")
    assert str(raised.value) == (
        "can't load runs/merged: the hub can't be reached, and there is no such folder here: pass a folder with the model instead"
    )
    assert client.asked == [huggingface_hub.constants.ENDPOINT]
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_answers_is_asked_once_for_all_models(online: Any) -> None:
    client = online(None)
    for name in ("a/b", "a/b", "c/d"):
        hub.check_hub(name)
    assert len(client.asked) == 1


def test_a_model_in_the_cache_needs_no_hub(online: Any, tmp_path) -> None:
    client = online(OSError("no network"))
    (tmp_path / "cache" / "models--someone--here").mkdir(parents=True)
    hub.check_hub("someone/here")
    assert client.asked == []
