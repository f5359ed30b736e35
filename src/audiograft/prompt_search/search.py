"""The loop: propose, refuse what does not ask the question, score the rest, remember the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from audiograft.prompt_search.journal import Journal
from audiograft.prompt_search.optimisers import Optimiser, Scored, extract_prompt
from audiograft.prompt_search.rewards import Reward
from audiograft.prompt_search.rules import normalise, why_not
from audiograft.types import ConfigError

MAX_EMPTY_ROUNDS = 3
"""Rounds in a row without a prompt that may be tried; then the optimiser is given up."""
NO_PROMPT, UNPAID = "no prompt in the reply", "no budget left"
"""Why replies are not scored, besides what `why_not` says."""
Stop = Literal["rounds", "patience", "budget", "optimiser"]


class Scorer(Protocol):
    """Asks the model about all dev clips."""

    def __call__(self, prompt: str) -> npt.NDArray[np.float64]:
        """(clips, labels) log-probabilities of the answers."""
        ...


@dataclass(frozen=True)
class Limits:
    """When a search ends, and how wide it is.

    Attributes:
        rounds: at most.
        candidates: replies that are asked for in each.
        memory: best prompts that the optimiser is shown.
        patience: rounds without a better prompt, after which it ends.
        budget: clips that may be scored in all, by all prompts; None for no limit. The starting prompt's are among them.

    Raises:
        ConfigError: one of them is below 1.
    """

    rounds: int = 30
    candidates: int = 5
    memory: int = 15
    patience: int = 6
    budget: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, not {value}")


@dataclass
class Search:
    """A search and what came of it so far.

    Attributes:
        tried: each prompt that was scored, in order, the starting one first.
        stopped: why it ended; empty while it goes on.
        rounds: that were begun.
        n_clips_scored: by all prompts.
        duplicates: proposals that had been scored before; they cost nothing.
        refused: other proposals that were not scored, by why.
        example: the last of these.
    """

    tried: list[Scored] = field(default_factory=list)
    stopped: Stop | Literal[""] = ""
    rounds: int = 0
    n_clips_scored: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    example: str = ""

    @property
    def best(self) -> Scored:
        """The first of those with the highest reward."""
        return max(self.tried, key=lambda scored: scored.reward)

    def memory(self, size: int) -> list[Scored]:
        """The best prompts, the best last; of equal ones the older counts as better."""
        order = sorted(range(len(self.tried)), key=lambda number: (self.tried[number].reward, -number))
        return [self.tried[number] for number in order[-size:]]


def check_start(start: str, answers: Mapping[str, str], limits: Limits, n_clips: int) -> None:
    """Raises ConfigError where the first prompt may not be tried, or the budget does not pay for it."""
    if why := why_not(start, answers):
        named = f"names {' and '.join(answers.values())} and what each means" if start else "asks the question: the model's own is empty"
        raise ConfigError(f"the prompt to start with, {start!r}, can't be used ({why}): give one with --prompt that {named}")
    if limits.budget is not None and limits.budget < n_clips:
        raise ConfigError(f"a budget of {limits.budget} clips does not pay for one prompt on {n_clips}: raise --budget, or lower --clips")


def search_prompts(
    start: str,
    answers: Mapping[str, str],
    optimiser: Optimiser,
    scorer: Scorer,
    reward: Reward,
    journal: Journal,
    limits: Limits,
    seed: int = 0,
    on_scored: Callable[[Scored], None] = lambda scored: None,
) -> Search:
    """Look for a better prompt, from the beginning or from where the journal ends: the result is the same.

    Args:
        start: the prompt to begin with.
        answers: of the closed question, by label; they stay as they are.
        optimiser: proposes.
        scorer: asks the model.
        reward: what is maximised.
        journal: what was done before.
        limits: when it ends.
        seed: of what the optimiser draws.
        on_scored: called with each prompt that was scored, now or before.

    Raises:
        ConfigError: a starting prompt that may not be tried, a budget that does not pay for it, or an optimiser that gave nothing at all.
        OptimiserError: the optimiser can't be used.
    """
    check_start(start, answers, limits, len(reward.truths))
    found = Search()
    walk = _Walk(found, answers, scorer, reward, journal, limits, on_scored)
    walk.score(start, 0)
    empty = stale = 0
    while not found.stopped:
        if found.rounds == limits.rounds:
            found.stopped = "rounds"
        elif stale == limits.patience:
            found.stopped = "patience"
        elif not walk.can_pay:
            found.stopped = "budget"
        elif empty == MAX_EMPTY_ROUNDS:
            found.stopped = "optimiser"
        else:
            found.rounds += 1
            before = found.best.reward
            empty = 0 if walk.play(found.rounds, optimiser, seed) else empty + 1
            stale = 0 if found.best.reward > before else stale + 1
    if found.stopped == "optimiser" and len(found.tried) == 1:
        raise ConfigError(f"{complaint(found)}: choose another --optimiser and --out")
    return found


@dataclass(frozen=True)
class _Walk:
    """One way through a search, along the journal as far as that goes."""

    found: Search
    answers: Mapping[str, str]
    scorer: Scorer
    reward: Reward
    journal: Journal
    limits: Limits
    on_scored: Callable[[Scored], None]

    @property
    def can_pay(self) -> bool:
        """Whether the budget has room for another prompt."""
        return self.limits.budget is None or self.found.n_clips_scored + len(self.reward.truths) <= self.limits.budget

    def play(self, number: int, optimiser: Optimiser, seed: int) -> bool:
        """One round; whether any reply held a prompt that may be tried, new or not."""
        replies = self.journal.replies(number)
        if replies is None:
            own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            replies = optimiser.propose(self.found.memory(self.limits.memory), self.limits.candidates, own_seed)
            self.journal.add_replies(number, replies)
        usable = False
        known = {normalise(scored.prompt) for scored in self.found.tried}
        for reply in replies:
            prompt = extract_prompt(reply)
            if why := NO_PROMPT if prompt is None else why_not(prompt, self.answers):
                self.found.refused[why] += 1
                self.found.example = reply if prompt is None else prompt
                continue
            assert prompt is not None
            usable = True
            if normalise(prompt) in known:
                self.found.duplicates += 1
            elif not self.can_pay:
                self.found.refused[UNPAID] += 1
            else:
                self.score(prompt, number)
                known.add(normalise(prompt))
        return usable

    def score(self, prompt: str, number: int) -> None:
        """Score a prompt, or take its score from the journal."""
        scored = self.journal.find(prompt)
        if scored is None:
            scores = self.scorer(prompt)
            scored = self.reward.score(prompt, scores, number)
            self.journal.add_score(scored, len(self.reward.truths))
        self.found.tried.append(scored)
        self.found.n_clips_scored += len(self.reward.truths)
        self.on_scored(scored)


def complaint(found: Search) -> str:
    """What was wrong with the proposals of an optimiser that was given up, in one line."""
    counted = ", ".join(f"{n} x {why}" for why, n in found.refused.most_common())
    example = " ".join(found.example.split())
    example = f"{example[:77]}..." if len(example) > 80 else example
    return f"{MAX_EMPTY_ROUNDS} rounds in a row without a prompt that may be tried ({counted}; the last reply: {example!r})"
