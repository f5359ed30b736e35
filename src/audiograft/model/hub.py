"""What the hub's errors mean for whoever gave the name, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from huggingface_hub import constants, get_session
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

_REACH_S = 10.0
"""How long the hub may take to answer at all."""


def check_hub(hub_id: str) -> None:
    """Ask the hub once whether it is there, where nothing of a model is in the cache: its library tries each file for most of a minute.

    Raises:
        LocalEntryNotFoundError: it can't be reached.
    """
    is_cached = Path(constants.HF_HUB_CACHE, f"models--{hub_id.replace('/', '--')}").exists()
    if not is_cached and not constants.is_offline_mode():
        _reach_hub()


@cache
def _reach_hub() -> None:
    try:
        get_session().head(constants.ENDPOINT, timeout=_REACH_S)
    except Exception as error:  # those of the client, which is another one in each version of the hub's library
        raise LocalEntryNotFoundError(f"{constants.ENDPOINT} does not answer") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from: transformers wraps the hub's errors in an OSError."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def hub_reason(error: BaseException, hub_id: str) -> tuple[str, str] | None:
    """What is wrong, and how to mend it; None where the error did not come from the hub.

    Args:
        error: as transformers raised it.
        hub_id: the model's name on the hub.
    """
    for cause in _chain(error):
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            if isinstance(cause, RepositoryNotFoundError) and not isinstance(cause, GatedRepoError):
                return "the hub shows no model of this name", "check the name, or set HF_TOKEN if the model is private"
            if isinstance(cause, GatedRepoError) or status in (401, 403):
                return f"the model is gated (HTTP {status})", f"accept its licence at https://huggingface.co/{hub_id} and set HF_TOKEN to your token"
            return f"the hub answers with HTTP {status}", "try again, or pass a folder with the model instead"
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return "the hub can't be reached", "pass a folder with the model instead"
    return None
