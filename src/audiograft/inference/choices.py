"""Closed questions: what is asked about a clip, what may be answered, and how likely the model finds each answer.

The answers are read from the next-token probabilities behind the prompt: one prefill, no decoding. Each answer counts with all of its single-token
spellings, so that it does not matter which of them (`A`, ` A`) follows the model's chat template. Importing this module stays free of torch.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft.data.manifest import replace_text
from audiograft.messages import Message, place_media
from audiograft.types import DETECTION_FILE, NONSPEECH, SPEECH, ConfigError, DataError

SOUNDLESS_SCORE = -100.0
"""Log-probability of speech where there is no sound, so that no model is asked: 0 by any temperature, and still a number."""


@dataclass(frozen=True)
class ClosedQuestion:
    """A question with a fixed set of answers.

    Attributes:
        prompt: with an `<audio>` marker where the clip stands, or none to put it first.
        answers: label -> what the model says for it; the order is that of all columns.
        system: what the model is told before, in a turn of its own; None for no such turn.
        temperature: divides the log-odds.
        threshold: of two answers the first is taken from this probability on; of more the likeliest.
        chosen_on: what temperature and threshold were fitted on: {"manifest", "sha256", "model", "clips"}; None where they were not.
        note: what a user should know about the model that was trained to answer it; None for nothing.

    Raises:
        ConfigError: fewer than two answers, one or its label blank, or a number out of its range.
        DataError: the prompt has more than one `<audio>` marker.
    """

    prompt: str
    answers: Mapping[str, str]
    system: str | None = None
    temperature: float = 1.0
    threshold: float = 0.5
    chosen_on: Mapping[str, Any] | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if len(self.answers) < 2:
            raise ConfigError(f"a closed question has two answers or more, not {len(self.answers)}: name another one")
        for label, answer in self.answers.items():
            if not label.strip() or not answer.strip():
                raise ConfigError(f"the answer {answer!r} of the label {label!r}: neither may be blank")
        for name, value, holds, expected in (
            ("temperature", self.temperature, 0 < self.temperature < float("inf"), "above 0"),
            ("threshold", self.threshold, 0 <= self.threshold <= 1, "between 0 and 1"),
        ):
            if not holds:
                raise ConfigError(f"{name} must be {expected}, not {value}")
        self.messages()

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the columns."""
        return tuple(self.answers)

    @property
    def about_speech(self) -> bool:
        """Whether the question is if there is speech, so that a clip without any sound needs no model."""
        return self.labels == (SPEECH, NONSPEECH)

    def messages(self) -> list[Message]:
        """The conversation up to the answer, with one audio part."""
        told = [] if self.system is None else [{"role": "system", "content": self.system}]
        return place_media([*told, {"role": "user", "content": self.prompt}], clips=1)

    def pick(self, probs: Sequence[float]) -> str:
        """The label for probabilities in the order of the labels: the first of two from the threshold on; of more the likeliest."""
        if len(self.labels) == 2:
            return self.labels[0 if probs[0] >= self.threshold else 1]
        return self.labels[int(np.argmax(probs))]

    @classmethod
    def read(cls, folder: str | Path) -> ClosedQuestion:
        """From `detection.json` of a model's folder.

        Raises:
            ConfigError: missing or broken; the line names the file and the key.
        """
        path = Path(folder) / DETECTION_FILE
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path}: can't be read ({error.strerror}): train a detector, or name another model") from error
        except (ValueError, ConfigError, DataError) as error:
            raise ConfigError(f"{path}: {error}: mend it, or fit it again with `audiograft calibrate`") from error

    def write(self, folder: str | Path) -> Path:
        """Write `detection.json` into a model's folder, in one step; the file."""
        path = Path(folder) / DETECTION_FILE
        replace_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")
        return path


DEFAULT_QUESTION = ClosedQuestion(
    prompt="Choose one:\nA) SPEECH (human voice)\nB) NONSPEECH (music/noise/silence/animals)\n\nAnswer with A or B ONLY.",
    answers={SPEECH: "A", NONSPEECH: "B"},
    system="You classify audio content.",
)
"""System C's (OPRO-Qwen v1.0.0), word for word: what a model is asked that has no question of its own."""


def find_question(model: str | Path) -> ClosedQuestion | None:
    """The model's own question; None where it has none.

    Args:
        model: as for `load_model`.

    Raises:
        ConfigError: its detection.json is broken, or there is no such model.
    """
    from transformers.utils.hub import cached_file

    from audiograft.model.checkpoint import loading, resolve_model

    if Path(model).expanduser().is_file():  # system B's checkpoint.pt
        return None
    path = resolve_model(model)
    if Path(path).is_dir():
        return ClosedQuestion.read(path) if (Path(path) / DETECTION_FILE).is_file() else None
    with loading(str(model), path):
        absent = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}
        file = cached_file(path, DETECTION_FILE, **absent)
    return None if file is None else ClosedQuestion.read(Path(file).parent)


def question_for(model: str | Path) -> ClosedQuestion:
    """The model's own question, `DEFAULT_QUESTION` where it has none. Raises what `find_question` does."""
    return find_question(model) or DEFAULT_QUESTION


def choice_question(choices: Sequence[str], tokenizer: Any, prompt: str | None = None) -> ClosedQuestion:
    """Which of some words fits a clip: answered by the words themselves where each is a single token, else by the letters A, B, C and so on.

    Args:
        choices: the words, which are the labels.
        tokenizer: of the model that is asked.
        prompt: what is asked in front of the list; by default which of these is in the audio.

    Raises:
        ConfigError: fewer than two, more than there are letters, or one twice.
    """
    if twice := [choice for number, choice in enumerate(choices) if choice in choices[:number]]:
        raise ConfigError(f"the choice {twice[0]!r} is there twice: leave one out")
    asked = prompt or "Which of these is in the audio?"
    if all(_single_tokens(tokenizer, choice) for choice in choices):
        listed = "\n".join(choices)
        return ClosedQuestion(f"{asked}\n{listed}\n\nAnswer with one of these words only.", {choice: choice for choice in choices})
    if len(choices) > len(string.ascii_uppercase):
        raise ConfigError(f"{len(choices)} choices are more than there are letters: name at most {len(string.ascii_uppercase)}")
    letters = string.ascii_uppercase[: len(choices)]
    listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True))
    return ClosedQuestion(f"{asked}\n{listed}\n\nAnswer with the letter only.", dict(zip(choices, letters, strict=True)))


def spellings(tokenizer: Any, answers: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Label -> ids of all single tokens that spell its answer: as it is, behind a space, behind a line feed.

    Raises:
        ConfigError: an answer without one, with the tokens that it takes; or two answers that share one.
    """
    found = {label: _single_tokens(tokenizer, answer) for label, answer in answers.items()}
    taken: dict[int, str] = {}
    for label, ids in found.items():
        answer = answers[label]
        if not ids:
            tokens = tokenizer.convert_ids_to_tokens(tokenizer(answer, add_special_tokens=False)["input_ids"])
            raise ConfigError(
                f"the answer {answer!r} of {label} is {len(tokens)} tokens for this model ({', '.join(map(repr, tokens))}): "
                "choose one that is a single token, such as a letter"
            )
        for token in ids:
            if token in taken:
                shared = tokenizer.convert_ids_to_tokens(token)
                raise ConfigError(f"{taken[token]} and {label} share the token {shared!r}: choose answers that differ in their only token")
            taken[token] = label
    return found


def _single_tokens(tokenizer: Any, answer: str) -> tuple[int, ...]:
    """Ids of the single tokens that spell an answer, in order."""
    found = set()
    for text in (answer, f" {answer}", f"\n{answer}"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            found.add(ids[0])
    # A sentencepiece tokenizer writes a space in front of every text, so that the bare piece, which follows a line feed, is not among these.
    vocabulary = tokenizer.get_vocab()
    found |= {vocabulary[piece] for piece in (answer, f"\N{LOWER ONE EIGHTH BLOCK}{answer}") if piece in vocabulary}
    return tuple(sorted(i for i in found if tokenizer.decode([i]).strip() == answer.strip()))


class ChoiceScorer:
    """A closed question that is put to one model again and again: its spellings and what stands in front of the clip are worked out once."""

    def __init__(self, model: Any, processor: Any, question: ClosedQuestion) -> None:
        """Takes and raises what `score_choices` does."""
        from audiograft.inference.prefill import Prefill

        self._spellings = list(spellings(processor.tokenizer, question.answers).values())
        self._prefill = Prefill(model, processor, question.messages())

    def positions(self, waveform: npt.NDArray[np.float32]) -> int:
        """That the prompt takes in the language model with this clip in it."""
        return self._prefill.positions(waveform)

    def scores(self, waveforms: Sequence[npt.NDArray[np.float32]], batch_size: int = 64) -> npt.NDArray[np.float64]:
        """As `score_choices`. Raises ConfigError where the model gives NaN or infinities, which would pass for an answer."""
        logits = self._prefill.last_logits(waveforms, [token for ids in self._spellings for token in ids], batch_size)
        if n_broken := int((~np.isfinite(logits)).any(axis=1).sum()):
            raise ConfigError(f"the model gives no finite numbers about {n_broken} of {len(logits)} clips: check its weights, or open it in float32")
        bounds = np.cumsum([len(ids) for ids in self._spellings])[:-1]
        answers = np.stack([np.logaddexp.reduce(own, axis=1) for own in np.split(logits, bounds, axis=1)], axis=1)
        # What the model gives to all other tokens cancels out, so that no sum over the vocabulary is needed.
        scores: npt.NDArray[np.float64] = answers - np.logaddexp.reduce(answers, axis=1, keepdims=True)
        return scores


def score_choices(
    model: Any, processor: Any, question: ClosedQuestion, waveforms: Sequence[npt.NDArray[np.float32]], batch_size: int = 64
) -> npt.NDArray[np.float64]:
    """How likely the model finds each answer about each clip: one prefill, logits at the last position of the prompt alone.

    Clips of similar length share a batch. In float32 what is found does not depend on it.

    Args:
        model: a graft or a stock model.
        processor: its processor.
        question: what is asked.
        waveforms: (n_samples,) at 16 kHz each; those of more than 30 s are heard window by window in one prompt, as `ask` hears them.
        batch_size: clips in one prefill.

    Returns:
        (clips, labels): natural logarithm of the probability of each answer among the answers, over all spellings; not tempered.

    Raises:
        ConfigError: as `spellings`, or the model gives no finite numbers.
        DataError: the chat template refuses the conversation.
    """
    return ChoiceScorer(model, processor, question).scores(waveforms, batch_size)


def choice_probs(scores: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """(clips, labels) tempered probabilities from the scores of `score_choices`; each row sums to 1."""
    tempered = np.asarray(scores, dtype=np.float64) / temperature
    grown = np.exp(tempered - tempered.max(axis=-1, keepdims=True))
    probs: npt.NDArray[np.float64] = grown / grown.sum(axis=-1, keepdims=True)
    return probs


def speech_probs(scores: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """(clips,) tempered probability of the first label."""
    return choice_probs(scores, temperature)[..., 0]


def _from_json(content: Any) -> ClosedQuestion:
    """Check what came from outside, and say which key is wrong."""
    known = {field.name for field in fields(ClosedQuestion)}
    if not isinstance(content, dict):
        raise ConfigError(f"is a JSON {type(content).__name__}, not an object")
    if unknown := sorted(set(content) - known):
        raise ConfigError(f"unknown key {unknown[0]}")
    if missing := [key for key in ("prompt", "answers") if key not in content]:
        raise ConfigError(f"has no {missing[0]}")
    number, text = (int, float), (str,)
    for key, kinds, expected in (
        ("prompt", text, "a text"),
        ("answers", (dict,), "an object of label and answer"),
        ("system", (str, type(None)), "a text or null"),
        ("temperature", number, "a number"),
        ("threshold", number, "a number"),
        ("chosen_on", (dict, type(None)), "an object or null"),
        ("note", (str, type(None)), "a text or null"),
    ):
        if key in content and (not isinstance(content[key], kinds) or isinstance(content[key], bool)):
            raise ConfigError(f"{key} must be {expected}, not {json.dumps(content[key])}")
    for label, answer in content["answers"].items():
        if not isinstance(answer, str) or not answer.strip():
            raise ConfigError(f"the answer of {label} must be a text, not {json.dumps(answer)}")
    return ClosedQuestion(**content)
