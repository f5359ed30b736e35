"""An optimiser that needs no language model: it changes words, order, layout, manners and examples of the best prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from audiograft.prompt_search.optimisers import Scored, wrap_prompt
from audiograft.prompt_search.rules import normalise, why_not

_SYNONYMS = (
    ("Choose one", "Pick one", "Select one", "Decide", "Which one is it?"),
    ("Answer with", "Reply with", "Respond with", "Say"),
    ("ONLY", "only", "and nothing else"),
    ("human voice", "a person talking", "spoken words", "somebody speaking"),
    ("clip", "recording", "audio", "sound"),
    ("noise", "background noise", "static"),
    ("music", "a melody"),
    ("silence", "nothing"),
)
"""Words that may stand for each other."""
_HINTS = (
    "Listen carefully.",
    "The clip may be short and noisy.",
    "Even a fragment counts.",
    "Ignore the background.",
    "If in doubt, choose the likelier one.",
    "What do you hear?",
)
_MARKS = ("{answer})", "({answer})", "{answer}.", "{answer}:", "{answer} =", "{answer} -")
_MAX_CHANGES = 3
_ATTEMPTS = 40
"""At a prompt that is allowed and new, before a known one is proposed again."""
_FAVOUR = 0.5
"""Chance to start from the best prompt; else from the next one, with the same chance, and so on."""


class TemplateOptimiser:
    """Mutates the best prompts by rules; a stand-in where no language model is at hand."""

    def __init__(self, answers: Mapping[str, str], examples: Mapping[str, Sequence[str]] | None = None) -> None:
        """Make one.

        Args:
            answers: of the closed question, by label.
            examples: by label, what is of this class, such as rain or engine.
        """
        self._answers = answers
        self._examples = {label: list(found) for label, found in (examples or {}).items() if found}
        self._changes: list[Callable[[str, random.Random], str]] = [_swap_words, _hint, _manners, self._layout, self._order, self._describe]

    @property
    def description(self) -> Mapping[str, Any]:
        return {"kind": "template"}

    def propose(self, history: Sequence[Scored], n: int, seed: int) -> list[str]:
        rng = random.Random(seed)
        known = {normalise(scored.prompt) for scored in history}
        replies = []
        for _ in range(n):
            prompt = self._new_prompt(history, known, rng)
            known.add(normalise(prompt))
            replies.append(wrap_prompt(prompt))
        return replies

    def _new_prompt(self, history: Sequence[Scored], known: set[str], rng: random.Random) -> str:
        prompt = history[-1].prompt
        for _ in range(_ATTEMPTS):
            place = len(history) - 1
            while place > 0 and rng.random() > _FAVOUR:
                place -= 1
            prompt = history[place].prompt
            for change in rng.sample(self._changes, rng.randint(1, _MAX_CHANGES)):
                prompt = change(prompt, rng)
            if normalise(prompt) not in known and why_not(prompt, self._answers) is None:
                break
        return prompt

    def _layout(self, prompt: str, rng: random.Random) -> str:
        """Another mark of the answers at the beginnings of lines, or fewer empty lines."""
        if rng.random() < 0.3:
            return re.sub(r"\n{2,}", "\n", prompt)
        mark = rng.choice(_MARKS)
        for answer in self._answers.values():
            marked = rf"^\(?{re.escape(answer)}(?:\)|\.|:| =| -)(?= )"
            # Backslashes in an answer would be taken for groups of the pattern.
            written = mark.format(answer=answer).replace("\\", r"\\")
            prompt = re.sub(marked, written, prompt, flags=re.MULTILINE)
        return prompt

    def _order(self, prompt: str, rng: random.Random) -> str:
        """The lines of the choices, shuffled."""
        lines = prompt.split("\n")
        choices = [number for number, line in enumerate(lines) if self._answer_of(line)]
        for number, line in zip(choices, rng.sample([lines[number] for number in choices], len(choices)), strict=True):
            lines[number] = line
        return "\n".join(lines)

    def _describe(self, prompt: str, rng: random.Random) -> str:
        """Examples behind a choice: taken away where there are some, else put there where some are known."""
        lines = prompt.split("\n")
        choices = {number: label for number, line in enumerate(lines) if (label := self._answer_of(line))}
        if not choices:
            return prompt
        number = rng.choice(sorted(choices))
        known = self._examples.get(choices[number], [])
        bare = re.sub(r" \([^()]*\)$", "", lines[number])
        shown = rng.sample(known, min(len(known), rng.randint(1, 3)))
        lines[number] = f"{bare} ({', '.join(shown)})" if shown and rng.random() < 0.7 else bare
        return "\n".join(lines)

    def _answer_of(self, line: str) -> str | None:
        """The label of the choice that a line describes."""
        for label, answer in self._answers.items():
            if re.match(rf"\(?{re.escape(answer)}(?!\w)", line):
                return label
        return None


def _swap_words(prompt: str, rng: random.Random) -> str:
    """One word for another of its group."""
    present = [(word, group) for group in _SYNONYMS for word in group if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt)]
    if not present:
        return prompt
    word, group = rng.choice(present)
    other = rng.choice([each for each in group if each != word])
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _: other, prompt, count=1)


def _hint(prompt: str, rng: random.Random) -> str:
    """A sentence more, in front or at the end; or one less where it is there already."""
    hint = rng.choice(_HINTS)
    if hint in prompt:
        return re.sub(r"\n{3,}", "\n\n", prompt.replace(f"{hint} ", "").replace(f" {hint}", "").replace(hint, "")).strip()
    return f"{hint} {prompt}" if rng.random() < 0.5 else f"{prompt} {hint}"


def _manners(prompt: str, rng: random.Random) -> str:
    """Say please, or no longer."""
    if "Please " in prompt:
        return re.sub(r"Please (\w)", lambda match: match[1].upper(), prompt, count=1)
    return re.sub(r"^([A-Z][a-z]+)\b", lambda match: f"Please {match[1].lower()}", prompt, count=1)
