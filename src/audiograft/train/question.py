"""The closed question that a run teaches: checked against the model's tokens before anything is learnt, and kept beside what was learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from audiograft.inference.choices import ClosedQuestion, spellings
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.train.recipe import Recipe
from audiograft.types import DETECTION_FILE, ConfigError

_ALIKE = 0.95
"""From this cosine on, two rows of the head are taken for one. "A" and "B", which `tiny` never met, have 0.996 there; "a" and "b" 0.03."""


def trained_question(recipe: Recipe, processor: Any) -> ClosedQuestion | None:
    """What labels are learnt as answers to; None where the recipe has no `detection`.

    Args:
        recipe: of the run.
        processor: of its model.

    Raises:
        ConfigError: an answer that is not one token of the model's, or is learnt in a spelling that `score_choices` does not look at.
    """
    detection = recipe.detection
    if detection is None:
        return None
    assert recipe.prompt is not None
    question = ClosedQuestion(recipe.prompt, dict(detection.answers), detection.system)
    found = spellings(processor.tokenizer, question.answers)
    for (label, answer), learnt in zip(question.answers.items(), _learnt(question, processor), strict=True):
        if len(learnt) != 1 or learnt[0] not in found[label]:
            spelt = processor.tokenizer.convert_ids_to_tokens(learnt)
            raise ConfigError(f"detection.answers.{label}: {answer!r} is learnt as {spelt}, not as one token that spells it: choose another answer")
    return question


def alike(question: ClosedQuestion, model: Any, processor: Any) -> str | None:
    """A warning where the head's rows for two answers point the same way, as those of tokens that the language model never met do.

    A frozen head can hardly tell such answers apart, whatever is learnt beneath it.
    """
    same = held_for_one(dict(zip(question.answers.values(), _learnt(question, processor), strict=True)), model)
    return f"warning: detection.answers: {same}: choose answers that it has met, such as a and b" if same else None


def held_for_one(answers: Mapping[str, Sequence[int]], model: Any) -> str | None:
    """In words, two answers whose rows of the head point the same way in all their spellings; None where there are none.

    Args:
        answers: answer -> ids of the tokens that spell it, each by itself.
        model: a graft or a stock model.
    """
    head = getattr(model, "stock", model).get_output_embeddings().weight
    rows = {answer: torch.nn.functional.normalize(head[[*ids]].detach().float(), dim=1) for answer, ids in answers.items()}
    for one, other in combinations(rows, 2):
        similarity = float((rows[one] @ rows[other].T).min())
        if similarity > _ALIKE:
            return f"the language model holds {one} and {other} for nearly the same token (cosine {similarity:.3f})"
    return None


def _learnt(question: ClosedQuestion, processor: Any) -> list[list[int]]:
    """The tokens of each answer as training has them, without the end of turn."""
    asked = [{"role": "user", "content": "?"}]
    answers = (processor.training_inputs(asked, answer, [])["labels"] for answer in question.answers.values())
    return [[token for token in labels if token != IGNORE_INDEX][:-1] for labels in answers]


def write_question(question: ClosedQuestion | None, folder: Path) -> None:
    """Leave the question in a model's folder; where there is none, that of an earlier run goes."""
    if question is None:
        (folder / DETECTION_FILE).unlink(missing_ok=True)
    else:
        question.write(folder)
