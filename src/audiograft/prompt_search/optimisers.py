"""What proposes prompts: the interface, what a language model is told, and how its replies are read.

The method is that of Yang et al. (2023, "Large Language Models as Optimizers", arXiv:2309.03409): the optimiser is shown the best prompts so far with
their scores, the best of them last, and writes others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from audiograft.messages import Message
from audiograft.prompt_search.rules import MAX_CHARACTERS, MIN_CHARACTERS
from audiograft.types import AudiograftError

OPENING, CLOSING = "<PROMPT>", "</PROMPT>"
"""What a reply puts its prompt between."""
_FENCED = re.compile(rf"{OPENING}(.*?){CLOSING}", re.DOTALL | re.IGNORECASE)


class OptimiserError(AudiograftError):
    """An optimiser that can't be used, or does not answer."""


@dataclass(frozen=True)
class Scored:
    """A prompt that was tried on the dev clips.

    Attributes:
        prompt: as it was tried.
        reward: what is maximised, see `audiograft.prompt_search.rewards.Reward`.
        balanced_accuracy: over all clips, 0 to 1.
        condition_accuracy: balanced accuracy averaged over the conditions, 0 to 1.
        recalls: by label, the share of its clips that were right, 0 to 1.
        round: in which it was proposed; 0 of the prompt that the search starts from.
    """

    prompt: str
    reward: float
    balanced_accuracy: float
    condition_accuracy: float
    recalls: Mapping[str, float]
    round: int


class Optimiser(Protocol):
    """Proposes prompts. It keeps nothing between two calls, so that a search can go on in another process."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What it is, for the records: a search goes on only with the same one."""
        ...

    def propose(self, history: Sequence[Scored], n: int, seed: int) -> list[str]:
        """Write `n` replies, each with a prompt between `OPENING` and `CLOSING` where all goes well.

        Args:
            history: the best prompts so far, the best last; at least one.
            n: how many are wanted.
            seed: of what is drawn.

        Raises:
            OptimiserError: it can't be used, or gives no answer.
        """
        ...


def wrap_prompt(prompt: str) -> str:
    """A reply that holds a prompt."""
    return f"{OPENING}{prompt}{CLOSING}"


def extract_prompt(reply: str) -> str | None:
    """The prompt that a reply holds, the last where it holds several (what stands before may be the model thinking); None where it holds none."""
    found = [text.strip() for text in _FENCED.findall(reply)]
    return next((text for text in reversed(found) if text), None)


def optimiser_messages(history: Sequence[Scored], answers: Mapping[str, str]) -> list[Message]:
    """What a language model is asked.

    Args:
        history: the best prompts so far, the best last.
        answers: of the closed question, by label.
    """
    meanings = ", ".join(f"{answer} (which means {label})" for label, answer in answers.items() if label.casefold() != answer.casefold())
    names = ", ".join(answers.values())
    tried = "\n\n".join(
        f"score {100 * scored.reward:.1f} (right: {', '.join(f'{label} {100 * recall:.0f} %' for label, recall in scored.recalls.items())})\n"
        f"{wrap_prompt(scored.prompt)}"
        for scored in history
    )
    content = (
        "A model hears a clip of sound together with a prompt, and has to answer with exactly one of: "
        f"{meanings or names}.\n"
        "These prompts were tried. A higher score is better, and the best one stands last.\n\n"
        f"{tried}\n\n"
        "Write one new prompt that differs from all of them and will score higher. It\n"
        f"- has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters, the fewer the better\n"
        f"- names each answer ({names}) as a word of its own"
        + (f", and what it means ({', '.join(answers)}) in the same order" if meanings else "")
        + "\n- has no markup and no special tokens\n"
        f"Put the new prompt between {OPENING} and {CLOSING}, and write nothing else."
    )
    return [
        {"role": "system", "content": "You improve the prompts of a model that listens to sounds."},
        {"role": "user", "content": content},
    ]
