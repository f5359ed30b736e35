"""The section `detection` of a recipe: rows that have a label and no text learn to answer a closed question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from audiograft.data.declarations import OpenSection, convert, unknown_key, wrong_value
from audiograft.types import ConfigError

if TYPE_CHECKING:
    from audiograft.train.recipe import Recipe

BALANCED = "balanced"
"""Of class weights: each label weighs as much as any other over the training rows."""


@dataclass(frozen=True)
class DetectionRecipe(OpenSection):
    """How labels are learnt. The question is the recipe's `prompt`; detection.json in output_dir keeps it for `audiograft detect`."""

    answers: Mapping[str, str]
    """What the model says for a label, as {SPEECH: A, NONSPEECH: B}, one token each. Rows with a `label` and neither text nor response learn it."""
    system: str | None = None
    """A system turn before the prompt of all rows with clips; conversations keep theirs."""
    loss_on: Literal["response", "answer"] = "response"
    """answer leaves the end of turn behind the response without loss, so that of a closed question the answer token alone is learnt."""
    class_weights: Mapping[str, float] | Literal["balanced"] | None = None
    """What the loss of each label's rows is multiplied by, 1 where it is not named; balanced lets all labels together weigh the same."""
    focal_gamma: float = 0.0
    """Focal loss (Lin et al. 2017, arXiv:1708.02002, eq. 4): rows that are right already weigh (1 - p)^gamma; 0 is cross-entropy."""

    @classmethod
    def from_mapping(cls, tree: Mapping[Any, Any], key: str, origin: str) -> Self:
        """See `OpenSection`."""
        for name in tree:
            if name not in _KEYS:
                raise unknown_key(name, _KEYS, f"{key}.", origin)
        if "answers" not in tree:
            raise ConfigError(f"{origin}: the key {key}.answers is missing: say what is answered for each label, as {{SPEECH: A, NONSPEECH: B}}")
        answers = _answers(tree["answers"], f"{key}.answers", origin)
        own = {name: convert(tree[name], hint, f"{key}.{name}", origin) for name, hint in _KEYS.items() if name in tree and hint is not None}
        gamma = own.get("focal_gamma", 0.0)
        if gamma < 0:
            raise wrong_value(f"{key}.focal_gamma", "0 or more", gamma, origin)
        weights = _class_weights(tree.get("class_weights"), answers, f"{key}.class_weights", origin)
        return cls(answers, class_weights=weights, **own)

    @property
    def is_plain(self) -> bool:
        """Whether the loss is plain cross-entropy."""
        return self.class_weights is None and self.focal_gamma == 0


_KEYS: dict[str, Any] = {"answers": None, "system": str | None, "loss_on": Literal["response", "answer"], "class_weights": None, "focal_gamma": float}


def _answers(given: Any, key: str, origin: str) -> dict[str, str]:
    if not isinstance(given, dict) or len(given) < 2:
        raise wrong_value(key, "two labels or more with what is said for each, as {SPEECH: A, NONSPEECH: B}", given, origin)
    for label, answer in given.items():
        for part in (label, answer):
            if not isinstance(part, str) or not part.strip():
                raise ConfigError(f"{origin}: {key}: {part!r} is no text: YAML takes yes, no and bare numbers for other things, so put it in quotes")
    if len(set(given.values())) < len(given):
        raise ConfigError(f"{origin}: {key}: two labels have the same answer, so that nothing could be told apart: give each its own")
    return dict(given)


def _class_weights(given: Any, answers: Mapping[str, str], key: str, origin: str) -> Mapping[str, float] | Literal["balanced"] | None:
    if given is None:
        return None
    if given == BALANCED:
        return "balanced"
    if not isinstance(given, dict):
        raise wrong_value(key, f"{BALANCED}, or a weight for each label, as {{SPEECH: 1.0, NONSPEECH: 2.0}}", given, origin)
    for label in given:
        if label not in answers:
            raise unknown_key(label, answers, f"{key}.", origin)
    weights = {str(label): float(convert(weight, float, f"{key}.{label}", origin)) for label, weight in given.items()}
    for label, weight in weights.items():
        if weight <= 0:
            raise wrong_value(f"{key}.{label}", "above 0", weight, origin)
    return weights


def check_detection(recipe: Recipe, source: str) -> None:
    """What the section needs of the rest of the recipe, or excludes.

    Raises:
        ConfigError: one line that names the key.
    """
    detection = recipe.detection
    if detection is None:
        return
    for wrong, message in (
        (
            recipe.prompt is None,
            "detection needs a prompt: the question that all clips are asked, such as `prompt: Is there speech?`",
        ),
        (recipe.loss == "kl", "detection and loss: kl exclude each other, since the teacher reads a transcript: take one out"),
        (
            recipe.data.streaming and detection.class_weights == BALANCED,
            "detection.class_weights: balanced counts labels beforehand, and data.streaming has none: give the weights in numbers",
        ),
    ):
        if wrong:
            raise ConfigError(f"{source}: {message}")
