"""The loop: it finds what helps, keeps to its limits, and goes on after any death as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searched import WordScorer

from audiograft.inference.choices import DEFAULT_QUESTION
from audiograft.prompt_search.journal import Journal
from audiograft.prompt_search.optimisers import Optimiser, Scored, wrap_prompt
from audiograft.prompt_search.rewards import Reward
from audiograft.prompt_search.search import Limits, Search, search_prompts
from audiograft.prompt_search.template import TemplateOptimiser
from audiograft.types import ConfigError, DataError

ANSWERS = DEFAULT_QUESTION.answers
TRUTHS = ["SPEECH", "NONSPEECH"] * 20
GOOD = "Listen carefully: A) SPEECH or B) NONSPEECH?"
PLAIN = "Is it A) SPEECH or B) NONSPEECH?"


@dataclass
class Script:
    """An optimiser that replies what it is told to, one list a round, the last one for ever."""

    rounds: list[list[str]]
    seen: list[list[Scored]] = field(default_factory=list)
    description: Mapping[str, Any] = field(default_factory=lambda: {"kind": "script"})

    def propose(self, history: Sequence[Scored], n: int, seed: int) -> list[str]:
        self.seen.append(list(history))
        return self.rounds[min(len(self.seen), len(self.rounds)) - 1]


def look(folder: Path, optimiser: Optimiser, scorer: WordScorer | None = None, seed: int = 0, **limits: Any) -> Search:
    """A search whose journal is in the folder."""
    reward = Reward(list(ANSWERS), TRUTHS, [""] * len(TRUTHS))
    with Journal.open(folder / "history.jsonl") as journal:
        return search_prompts(DEFAULT_QUESTION.prompt, ANSWERS, optimiser, scorer or WordScorer(TRUTHS), reward, journal, Limits(**limits), seed)


def test_the_word_that_helps_is_found_without_a_language_model(tmp_path: Path) -> None:
    found = look(tmp_path, TemplateOptimiser(ANSWERS))
    assert "carefully" in found.best.prompt
    assert found.best.balanced_accuracy == pytest.approx(0.9)
    assert found.tried[0].balanced_accuracy == pytest.approx(0.6)
    assert found.stopped in ("patience", "rounds")


def test_the_reward_is_that_of_its_formula(tmp_path: Path) -> None:
    # SPEECH: 3 of 4 right; NONSPEECH: 1 of 2. In cell x all are right, in y of SPEECH half and of NONSPEECH none.
    reward = Reward(["SPEECH", "NONSPEECH"], ["SPEECH"] * 4 + ["NONSPEECH"] * 2, ["x", "x", "y", "y", "x", "y"])
    scores = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    scored = reward.score("p" * 200, scores, 3)
    assert scored.recalls == {"SPEECH": 0.75, "NONSPEECH": 0.5}
    assert scored.balanced_accuracy == 0.625
    assert scored.condition_accuracy == pytest.approx((1 + 0.25) / 2)
    assert scored.reward == pytest.approx(0.625 + 0.25 * 0.625 - 0.05 * 2)


def test_many_classes_and_a_condition_that_lacks_one() -> None:
    reward = Reward(["dog", "car", "rain"], ["dog", "car", "rain", "rain"], ["x", "x", "x", "y"], condition_weight=1, length_weight=0)
    scored = reward.score("which?", np.eye(3)[[0, 0, 2, 2]], 0)
    assert scored.balanced_accuracy == pytest.approx(2 / 3)
    assert scored.reward == pytest.approx(2 / 3 + (2 / 3 + 1) / 2)


def test_the_optimiser_sees_the_best_prompts_with_the_best_last(tmp_path: Path) -> None:
    others = [f"{PLAIN} Say so{'!' * n}" for n in (1, 2, 3)]
    script = Script([[wrap_prompt(text) for text in [*others, GOOD]], []])
    look(tmp_path, script, memory=3, rounds=2)
    assert [scored.prompt for scored in script.seen[1]] == [others[1], others[0], GOOD]
    assert [scored.reward for scored in script.seen[1]] == sorted(scored.reward for scored in script.seen[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_search_that_dies_anywhere_goes_on_to_the_same_end(tmp_path: Path, seed: int) -> None:
    (tmp_path / "whole").mkdir()
    scorer = WordScorer(TRUTHS)
    whole = look(tmp_path / "whole", TemplateOptimiser(ANSWERS), scorer, seed, rounds=5)
    for die_after in (0, 1, 3, len(scorer.asked) - 1):
        folder = tmp_path / str(die_after)
        folder.mkdir()
        first = WordScorer(TRUTHS, die_after=die_after)
        with pytest.raises(KeyboardInterrupt):
            look(folder, TemplateOptimiser(ANSWERS), first, seed, rounds=5)
        with (folder / "history.jsonl").open("ab") as file:
            file.write(b'{"event": "scored", "prom')  # a line that was being written
        second = WordScorer(TRUTHS)
        assert look(folder, TemplateOptimiser(ANSWERS), second, seed, rounds=5) == whole
        assert first.asked + second.asked == scorer.asked
        assert (folder / "history.jsonl").read_bytes() == (tmp_path / "whole" / "history.jsonl").read_bytes()
    again = WordScorer(TRUTHS, die_after=0)
    assert look(tmp_path / "whole", TemplateOptimiser(ANSWERS), again, seed, rounds=5) == whole


def test_replies_that_were_paid_for_are_not_asked_for_again(tmp_path: Path) -> None:
    script = Script([[wrap_prompt(PLAIN), wrap_prompt(GOOD)]])
    with pytest.raises(KeyboardInterrupt):
        look(tmp_path, script, WordScorer(TRUTHS, die_after=2), rounds=1)
    silent = Script([[]])
    assert look(tmp_path, silent, rounds=1).best.prompt == GOOD
    assert silent.seen == []


def test_another_seed_draws_other_prompts() -> None:
    start = Scored(DEFAULT_QUESTION.prompt, 0.0, 0.0, 0.0, {}, 0)
    optimiser = TemplateOptimiser(ANSWERS)
    assert optimiser.propose([start], 5, 1) == optimiser.propose([start], 5, 1)
    assert optimiser.propose([start], 5, 1) != optimiser.propose([start], 5, 2)


def test_the_budget_holds_exactly(tmp_path: Path) -> None:
    scorer = WordScorer(TRUTHS)
    found = look(tmp_path, TemplateOptimiser(ANSWERS), scorer, budget=7 * len(TRUTHS) + 39, rounds=100, patience=100)
    assert (found.stopped, len(scorer.asked), found.n_clips_scored) == ("budget", 7, 7 * len(TRUTHS))
    assert found.refused["no budget left"] == 4  # 1 at first, 5, and 1 of the 5 that follow


def test_a_budget_below_one_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a budget of 39 clips does not pay for one prompt on 40"):
        look(tmp_path, TemplateOptimiser(ANSWERS), budget=39)


def test_it_stops_when_nothing_better_comes(tmp_path: Path) -> None:
    prompts = (f"{PLAIN} Say so, number {number}." for number in range(100))
    script = Script([[wrap_prompt(GOOD)], *[[wrap_prompt(next(prompts))] for _ in range(20)]])
    found = look(tmp_path, script, patience=4)
    assert (found.stopped, found.rounds, found.best.round) == ("patience", 5, 1)


def test_known_prompts_cost_nothing(tmp_path: Path) -> None:
    same = [GOOD, GOOD.replace("Listen", "listen"), f"  {GOOD}\n", DEFAULT_QUESTION.prompt]
    scorer = WordScorer(TRUTHS)
    found = look(tmp_path, Script([[wrap_prompt(prompt) for prompt in same]]), scorer, rounds=3)
    assert scorer.asked == [DEFAULT_QUESTION.prompt, GOOD]
    assert found.duplicates == 3 + 4 + 4


def test_what_can_not_be_tried_is_counted_and_the_loop_goes_on(tmp_path: Path) -> None:
    script = Script([["nothing"], ["nothing", wrap_prompt("A or B")], [wrap_prompt(GOOD)], ["nothing"]])
    found = look(tmp_path, script, rounds=5)
    assert found.best.prompt == GOOD
    assert found.refused == {"no prompt in the reply": 4, "not 10 to 300 characters": 1}
    assert found.stopped == "rounds"


def test_an_optimiser_that_no_longer_gives_prompts_is_given_up(tmp_path: Path) -> None:
    found = look(tmp_path, Script([[wrap_prompt(GOOD)], ["I can't help with that."]]), rounds=20)
    assert (found.stopped, found.rounds) == ("optimiser", 4)
    assert found.best.prompt == GOOD


def test_an_optimiser_that_never_gave_one_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        look(tmp_path, Script([["I can't\nhelp with that."]]))
    assert str(error.value) == (
        '3 rounds in a row without a prompt that may be tried (3 x no prompt in the reply; the last reply: "I can\'t help with that."): '
        "choose another --optimiser and --out"
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no JSON\n", "history.jsonl:1: not valid JSON"),
        ('{"event": "scored", "prompt": "x"}\n', "history.jsonl:1: no step of a search"),
        ('{"round": 1}\n', "history.jsonl:1: no step of a search"),
    ],
)
def test_a_broken_history_names_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "history.jsonl").write_text(line)
    with pytest.raises(DataError, match=complaint):
        look(tmp_path, TemplateOptimiser(ANSWERS))


def test_two_processes_do_not_search_in_one_folder(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "history.jsonl"), pytest.raises(DataError, match="another process searches here"):
        look(tmp_path, TemplateOptimiser(ANSWERS))


def test_the_template_changes_words_order_layout_manners_and_examples() -> None:
    start = Scored(DEFAULT_QUESTION.prompt, 0.0, 0.0, 0.0, {}, 0)
    optimiser = TemplateOptimiser(ANSWERS, {"NONSPEECH": ["engine", "bird"]})
    prompts = "\n---\n".join(reply for seed in range(100) for reply in optimiser.propose([start], 5, seed))
    for sign in ("Please choose", "(A) SPEECH", "Reply with", "engine", "Listen carefully.", "B) NONSPEECH (music/noise/silence/animals)\nA)"):
        assert sign in prompts
