"""The predictions file: one row a clip, from which every figure is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from audiograft.data.manifest import scan_rows
from audiograft.types import NONSPEECH, SPEECH, DataError, confidence

PREDICTIONS_NAME = "predictions.jsonl"
Task = Literal["transcript", "answer", "detection"]
"""What a row wants: what was said, an answer to a question, or one of a few labels."""


@dataclass(frozen=True)
class Prediction:
    """One row: what was expected, and what the model wrote.

    Attributes:
        id: unique within the file; an integer there is taken as text.
        reference: what was said, the right answer or the label, as the manifest has it.
        hypothesis: what the model wrote, raw, or the label that it chose; empty where the row failed.
        audio: the clip as the manifest names it, several clips as a tuple, None where there is none.
        images: pictures as the manifest names them.
        videos: likewise.
        task: `transcript`, `answer` or `detection`.
        prompt: the instruction; None for conversations.
        duration_s: length of the clips in seconds.
        decode_s: the row's share of the wall time of its batch: features, encoder, decoding; not reading the file.
        speaker: the unit over which intervals are clustered.
        recording: what the clip was cut from.
        source: the corpus.
        language: as an ISO 639-1 code.
        question: what kind of question it is.
        snr_db: signal-to-noise ratio, where the manifest states it.
        tokens: what the hypothesis consists of, the end token with it.
        token_logprobs: natural logarithm of the probability of each token.
        reference_nats: negative log-likelihood of the reference, end of turn with it, summed over its tokens; of a detection that of its label
            among the choices, before temperature.
        reference_tokens: their number; a label counts as one.
        speech_prob: of a detection, the probability of the first choice, behind the temperature.
        scores: of a detection, the log-probability of each choice, before the temperature; the first choice first. None where they are not known.
        error: why there is no hypothesis, where there is none.
        extra: every other key of the row.
    """

    id: str
    reference: str
    hypothesis: str
    audio: str | tuple[str, ...] | None = None
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    task: Task = "transcript"
    prompt: str | None = None
    duration_s: float | None = None
    decode_s: float | None = None
    speaker: str | None = None
    recording: str | None = None
    source: str | None = None
    language: str | None = None
    question: str | None = None
    snr_db: float | None = None
    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    reference_nats: float | None = None
    reference_tokens: int | None = None
    speech_prob: float | None = None
    scores: Mapping[str, float] | None = None
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def confidence(self) -> float | None:
        """See `audiograft.types.confidence`."""
        return confidence(self.token_logprobs)

    @property
    def cluster(self) -> str | None:
        """The unit over which intervals are clustered: who speaks. Of a detection what the clip was cut from, since sounds have no speaker."""
        return self.speaker if self.task != "detection" or self.recording is None else self.recording

    def as_row(self) -> dict[str, Any]:
        """For JSON, without what is empty."""
        known = {name: getattr(self, name) for name in _KINDS}
        kept = {name: value for name, value in known.items() if value is not None and value != () or name in _ALWAYS}
        if self.task != "detection":
            return kept | self.extra
        # A label's loss is that of the scores, and is not said twice.
        own = {_AS_DETECTION.get(name, name): value for name, value in kept.items() if name not in ("reference_nats", "reference_tokens")}
        return own | self.extra


_TEXT = (str, "a string")
_OPTIONAL_TEXT = (str | None, "a string or null")
_OPTIONAL_NUMBER = (int | float | None, "a number or null")
_LIST = (list, "a list")
_ITEMS: Mapping[str, tuple[Any, str]] = {
    "audio": (str, "a list of paths"),
    "images": (str, "a list of paths"),
    "videos": (str, "a list of paths"),
    "tokens": (str, "a list of strings"),
    "token_logprobs": (int | float, "a list of numbers"),
}
_AS_DETECTION = {"reference": "label", "hypothesis": "predicted"}
"""What texts are called in the rows of detections."""
_AS_PREDICTION = {theirs: own for own, theirs in _AS_DETECTION.items()}
_TASKS = f"{', '.join(get_args(Task)[:-1])} or {get_args(Task)[-1]}"
_NOT_NEGATIVE = ("duration_s", "decode_s", "reference_nats", "reference_tokens")
_KINDS: Mapping[str, tuple[Any, str]] = {
    "id": (str | int, "a string or an integer"),
    "audio": (str | list | None, "a path, a list of paths or null"),
    "images": (list, "a list of paths"),
    "videos": (list, "a list of paths"),
    "task": _TEXT,
    "prompt": _OPTIONAL_TEXT,
    "reference": _TEXT,
    "hypothesis": _TEXT,
    "duration_s": _OPTIONAL_NUMBER,
    "decode_s": _OPTIONAL_NUMBER,
    "speaker": _OPTIONAL_TEXT,
    "recording": _OPTIONAL_TEXT,
    "source": _OPTIONAL_TEXT,
    "language": _OPTIONAL_TEXT,
    "question": _OPTIONAL_TEXT,
    "snr_db": _OPTIONAL_NUMBER,
    "tokens": _LIST,
    "token_logprobs": _LIST,
    "reference_nats": _OPTIONAL_NUMBER,
    "reference_tokens": (int | None, "a number or null"),
    "speech_prob": _OPTIONAL_NUMBER,
    "scores": (dict | None, "an object of log-probabilities by label, or null"),
    "error": _OPTIONAL_TEXT,
}
_NEEDED: Mapping[str, str] = {
    "id": "give each row its own",
    "reference": "write what was said, an empty string where that was nothing",
    "hypothesis": "write what was recognised, an empty string where that was nothing",
}
"""Keys that no row can do without, and what to do where one is missing or wrong. The file may be another system's, so nothing is to be repeated."""
_NEEDED_DETECTION: Mapping[str, str] = {
    "id": _NEEDED["id"],
    "label": "write what the clip is, such as SPEECH or NONSPEECH",
    "predicted": "write what was detected, or the probability of speech as speech_prob",
}
_ALWAYS = ("id", "audio", "task", "reference", "hypothesis", "duration_s", "speaker")


def find_predictions(path: str | Path) -> Path:
    """The predictions file of a run folder, or the file itself.

    Raises:
        DataError: there is none.
    """
    given = Path(path)
    found = given / PREDICTIONS_NAME if given.is_dir() else given
    if not found.is_file():
        part = found.with_name(f"{found.name}.part")
        mend = (
            "its run was interrupted: start the same evaluation again, it goes on from there" if part.is_file() else "audiograft evaluate writes one"
        )
        raise DataError(f"{found}: no such predictions file; {mend}")
    return found


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a predictions file, ours or another system's.

    `id`, `reference` and `hypothesis` are enough; of a detection `id`, `label`, and `predicted` or `speech_prob`, which is SPEECH from 0.5 on.

    Args:
        path: the file, or its run folder.

    Raises:
        DataError: there is no such file, it is empty, a row is broken or cut off, or an id stands twice.
    """
    file = find_predictions(path)
    lines: dict[str, int] = {}
    predictions = []
    for number, offset, row in scan_rows(file):
        if isinstance(row, DataError):
            raise _cut_off(file, number, offset) or row
        prediction = parse_prediction(row, f"{file}:{number}")
        first = lines.setdefault(prediction.id, number)
        if first != number:
            raise DataError(f"{file}:{number}: id {prediction.id!r} stands in line {first} already: keep one row a clip")
        predictions.append(prediction)
    return predictions


def _cut_off(file: Path, number: int, offset: int) -> DataError | None:
    """The error of a last line that was not written or copied to its end; None where the line is broken in another way."""
    with file.open("rb") as opened:
        opened.seek(offset)
        line, behind = opened.readline(), opened.read(1)
    if behind or not line.lstrip().startswith(b"{") or line.endswith((b"\n", b"}")):
        return None
    return DataError(f"{file}:{number}: the last line is cut off: make or copy the file again, or take the line out")


def parse_prediction(row: Mapping[str, Any], place: str) -> Prediction:
    """A row as a prediction; `place` is its file and line.

    Raises:
        DataError: a key is missing or has the wrong type.
    """
    is_detection = _is_detection(row)
    if is_detection:
        row = {_AS_PREDICTION.get(name, name): value for name, value in _decided(row, place).items()} | {"task": "detection"}
    values: dict[str, Any] = {}
    for name in _KINDS:
        needed = (_NEEDED_DETECTION if is_detection else _NEEDED).get(named := _AS_DETECTION.get(name, name) if is_detection else name)
        if name in row:
            values[name] = _checked(name, row[name], f'{place}: "{named}"', needed or "correct it or leave the key out")
        elif needed:
            raise DataError(f'{place}: "{named}" is missing: {needed}')
    if values.get("task", "transcript") not in get_args(Task):
        raise DataError(f'{place}: "task" must be {_TASKS}, not {values["task"]!r}: correct it or leave the key out')
    values["id"] = str(values["id"])
    if is_detection:
        values |= _label_loss(values, place)
    return Prediction(**values, extra={name: value for name, value in row.items() if name not in _KINDS})


def _checked(name: str, value: Any, place: str, mend: str) -> Any:
    """A value of the right type, lists as tuples."""
    kind, what = _KINDS[name]
    if isinstance(value, list):
        item_kind, items = _ITEMS.get(name, (object, what))
        fits, what = isinstance(value, kind) and all(_is_a(item, item_kind) for item in value), items
    elif isinstance(value, dict):
        fits = isinstance(value, kind) and bool(value) and all(_is_a(item, int | float) for item in value.values())
    else:
        fits = _is_a(value, kind)
    if fits and name in _NOT_NEGATIVE and value is not None and value < 0:
        fits, what = False, "0 or more"
    if fits and name == "speech_prob" and value is not None and not 0 <= value <= 1:
        fits, what = False, "from 0 to 1"
    if not fits:
        raise DataError(f"{place} must be {what}: {mend}")
    return tuple(value) if isinstance(value, list) else value


def _is_detection(row: Mapping[str, Any]) -> bool:
    """Whether a row says so, or names a label and neither text."""
    return row.get("task") == "detection" or ("task" not in row and "label" in row and not row.keys() & {"reference", "hypothesis"})


def _decided(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A detection with what was detected: of another system's probability of speech, speech from 0.5 on; of a failed row nothing."""
    if row.get("error") is not None:
        return {"predicted": "", **row}
    probability = row.get("speech_prob")
    if "predicted" in row or probability is None:
        return dict(row)
    if not _is_a(probability, int | float):
        raise DataError(f'{place}: "speech_prob" must be a number from 0 to 1: correct it, or write what was detected as predicted')
    if row.get("label") not in (SPEECH, NONSPEECH):
        raise DataError(f'{place}: "predicted" is missing: only of {SPEECH} and {NONSPEECH} it follows from speech_prob')
    return {**row, "predicted": SPEECH if float(probability) >= 0.5 else NONSPEECH}


def _label_loss(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """How unlikely the label of a detection is to the model, where its scores are known."""
    scores = values.get("scores")
    if scores is None or values.get("error") is not None:
        return {}
    for name, text in (("label", values["reference"]), ("predicted", values["hypothesis"])):
        if text not in scores:
            raise DataError(f'{place}: "{name}" {text!r} has no score among {", ".join(scores)}: correct it')
    return {"reference_nats": max(-scores[values["reference"]], 0.0), "reference_tokens": 1}


def _is_a(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and (not isinstance(value, float) or math.isfinite(value))
