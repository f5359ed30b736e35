"""`push`: a model or adapter folder goes to the Hugging Face hub in one commit, its card with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, errors, get_token

from audiograft.model.adapters import Adapter, read_adapter
from audiograft.model.card import CardOptions, build_card, is_ours
from audiograft.model.checkpoint import SHIPPED, one_line
from audiograft.model.load import Bases, locate_bases
from audiograft.model.records import ADAPTER_NAME, CONFIG_NAME, read_evaluation
from audiograft.types import DETECTION_FILE, AudiograftError, ConfigError

CARD_NAME = "README.md"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "projector.safetensors", "adapter_model.safetensors")
_WANTED = (
    *_WEIGHTS, "model.safetensors.index.json", "config.json", "generation_config.json", "adapter.json", "adapter_config.json", DETECTION_FILE,
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip
"""What loading a model reads. Everything else in its folder (checkpoints, optimiser states, logs, clips) stays where it is."""
_FOLDERS = ("", "lora-*", "vision_processor")
"""Folders of a model: itself, PEFT's adapters, and the image processor."""


@dataclass(frozen=True)
class PushReport:
    """What was uploaded, or would be.

    Attributes:
        repo: OWNER/NAME.
        url: of the model's page; None where nothing was uploaded.
        commit: of the upload, on the hub; None likewise.
        files: size in bytes of each file, by its path.
        removed: files of an older model that were taken away from the repository.
        card: text of README.md.
        own_card: whether the folder's README.md, which audiograft did not write, went up as it is.
    """

    repo: str
    url: str | None
    commit: str | None
    files: dict[str, int]
    removed: tuple[str, ...]
    card: str
    own_card: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def push(
    folder: Path,
    repo: str,
    runs: Sequence[Path] = (),
    options: CardOptions | None = None,
    *,
    private: bool = False,
    message: str | None = None,
    overwrite_card: bool = False,
    dry_run: bool = False,
) -> PushReport:
    """Upload a folder with a card that is made from its own records.

    The card is written into the folder as README.md. One that is there already and was not written by audiograft, or was edited since, is
    left alone and goes up as it is. The token is the hub's own (HF_TOKEN, or a login).

    Args:
        folder: a model or adapter folder.
        repo: OWNER/NAME; made where there is none.
        runs: folders of evaluation runs of this model, whose figures the card shows.
        options: what the card says beside.
        private: make a new repository private.
        message: of the commit.
        overwrite_card: write a new card over any other.
        dry_run: upload and write nothing; needs no token and no network.

    Raises:
        ConfigError: the folder, the name, a run or the token can't be used.
        AudiograftError: the hub refuses, or can't be reached.
    """
    if not _REPO.fullmatch(repo):
        raise ConfigError(f"--repo {repo}: is not OWNER/NAME, such as anna/listener-3b")
    files = model_files(folder)
    adapter = portable_adapter(folder)
    options = options or CardOptions()
    if adapter is not None and not options.base_models:
        options = replace(options, base_models=tuple(name for name in adapter.sources.values() if name not in SHIPPED))
    weights = [folder / name for name in files if fnmatchcase(Path(name).name, "*.safetensors")]
    evaluations = [read_evaluation(run, folder, repo, weights) for run in runs]
    card_path = folder / CARD_NAME
    existing = card_path.read_text(encoding="utf-8") if card_path.is_file() else None
    own_card = existing is not None and not is_ours(existing) and not overwrite_card
    card = existing if own_card and existing is not None else build_card(folder, repo, evaluations, options)
    sizes = {CARD_NAME: len(card.encode()), **{name: (folder / name).stat().st_size for name in files}}
    if dry_run:
        return PushReport(repo, None, None, sizes, (), card, own_card)
    token = _token()
    _refuse_secrets(folder, files, card, token)
    if not own_card:
        _write_card(card_path, card)
    with _one_line_errors(repo, token):
        contents: dict[str, Path | bytes] = {name: folder / name for name in (CARD_NAME, *files)}
        if adapter is not None:
            contents[ADAPTER_NAME] = (json.dumps(asdict(adapter), indent=1, ensure_ascii=False) + "\n").encode()
        message = message or f"Upload {folder.resolve().name} with audiograft"
        url, commit, removed = _upload(contents, repo, token, private, message)
    return PushReport(repo, url, commit, sizes, removed, card, own_card)


def model_files(folder: Path) -> list[str]:
    """Paths, relative to a folder, of the files that loading its model reads.

    Raises:
        ConfigError: the folder holds no model and no adapter.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder: name the output folder of audiograft train, graft or merge")
    found = sorted(path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file())
    wanted = [name for name in found if _belongs_to_model(name)]
    if CONFIG_NAME not in wanted and ADAPTER_NAME not in wanted:
        raise ConfigError(f"{folder}: has no {CONFIG_NAME} and no {ADAPTER_NAME}: name the output folder of audiograft train, graft or merge")
    if not any(name.endswith(".safetensors") for name in wanted):
        raise ConfigError(f"{folder}: has no weights in safetensors: the run may not be finished; run the same audiograft train again")
    return wanted


def portable_adapter(folder: Path) -> Adapter | None:
    """What adapter.json has to say for others: a base that is an adapter of this machine is replaced by that one's own base. None for whole models.

    That is possible where training went on with all that the adapter beneath had trained, as `finetune` does with the projector of `align`.

    Raises:
        ConfigError: the base is a folder that nobody else has.
    """
    if not (folder / ADAPTER_NAME).is_file():
        return None
    adapter, place = read_adapter(folder), folder
    while "model" in adapter.base:
        beneath = Path(locate_bases(place, adapter, Bases())["model"])
        if not (beneath / ADAPTER_NAME).is_file():
            break
        under = read_adapter(beneath)
        # LoRA of the adapter beneath is merged when it is opened, so that none of the same name takes its place.
        left = [name for name in under.trained if name not in adapter.trained or ".lora_" in name]
        if left:
            raise ConfigError(f"{folder / ADAPTER_NAME}: needs {left[0]} of {beneath} too: audiograft merge it, and push the whole model")
        adapter, place = replace(adapter, base=under.base, base_sha256=under.base_sha256, revision=under.revision, relative=under.relative), beneath
    for part, source in adapter.sources.items():
        if Path(source).is_absolute() or Path(source).exists():
            raise ConfigError(
                f"{folder / ADAPTER_NAME}: its {part} is {source}, which nobody else has: audiograft merge it, and push the whole model"
            )
    return replace(adapter, relative={})


def _belongs_to_model(name: str) -> bool:
    parent, _, file = name.rpartition("/")
    return any(fnmatchcase(parent, pattern) for pattern in _FOLDERS) and any(fnmatchcase(file, pattern) for pattern in _WANTED)


def _token() -> str:
    token = get_token()
    if not token:
        raise ConfigError("no Hugging Face token: set HF_TOKEN, or log in with `hf auth login`; it needs write access")
    return token


def _refuse_secrets(folder: Path, files: Sequence[str], card: str, token: str) -> None:
    """Stop where the token itself stands in what would go up; weights are not searched."""
    if token in card:
        raise ConfigError(f"{folder / CARD_NAME}: the card would contain your Hugging Face token: take it out of the recipe or the README")
    for name in files:
        if not name.endswith(".safetensors") and token.encode() in (folder / name).read_bytes():
            raise ConfigError(f"{folder / name}: contains your Hugging Face token: take it out, nothing was uploaded")


def _write_card(path: Path, card: str) -> None:
    try:
        path.write_text(card, encoding="utf-8")
    except OSError as error:
        raise AudiograftError(f"{path}: the card can't be written ({error.strerror}): correct the folder's permissions") from error


def _upload(contents: Mapping[str, Path | bytes], repo: str, token: str, private: bool, message: str) -> tuple[str, str, tuple[str, ...]]:
    """One commit with all files, so that a card and the weights it speaks of are never apart."""
    api = HfApi(token=token)
    url = api.create_repo(repo, private=True if private else None, exist_ok=True)
    info = api.model_info(repo)
    if private and not info.private:
        raise ConfigError(f"{repo}: is there already and is public, so nothing was uploaded: make it private on the hub, or leave --private out")
    # Weights of an older model beside the new ones could be read in their place.
    remote = [sibling.rfilename for sibling in info.siblings or ()]
    removed = tuple(name for name in remote if _belongs_to_model(name) and name not in contents)
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in removed),
    ]
    commit = api.create_commit(repo, operations, commit_message=message)
    return str(url), commit.oid, removed


_BY_STATUS = {
    401: "the hub does not accept the token: make a new one at https://huggingface.co/settings/tokens and set HF_TOKEN",
    403: "the token may not write there: check OWNER, and that the token has write access",
    404: "the hub has no such repository, or hides it from this token: check OWNER/NAME",
    409: "somebody else changed the repository meanwhile: push again",
    412: "somebody else changed the repository meanwhile: push again",
    429: "the hub asks to wait: push again later",
}


@contextmanager
def _one_line_errors(repo: str, token: str) -> Iterator[None]:
    """Whatever the hub's client raises becomes one line, without the token."""
    try:
        yield
    except AudiograftError:
        raise
    # httpx and hf_xet have error classes of their own, which differ from version to version of the hub's client.
    except Exception as error:
        raise AudiograftError(f"{repo}: {_reason(error).replace(token, '...')}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "nothing was uploaded, since HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return f"{_BY_STATUS.get(status, one_line(error))} (HTTP {status})"
    # The client wraps what goes wrong with one file.
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(cause, errors.HfHubHTTPError):
        return _reason(cause)
    return f"the upload failed ({type(cause).__name__}: {one_line(cause)}): check the network and push again"
