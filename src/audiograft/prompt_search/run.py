"""A search from its manifests to its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiograft import provenance
from audiograft.evaluate.folder import model_fingerprint, write_json
from audiograft.inference.choices import ClosedQuestion, question_for, spellings
from audiograft.prompt_search.clips import LabelledClips, read_dev, read_test
from audiograft.prompt_search.held_out import check_lock, measure_once
from audiograft.prompt_search.journal import HISTORY_NAME, Journal
from audiograft.prompt_search.optimisers import Optimiser, Scored
from audiograft.prompt_search.results import write_results
from audiograft.prompt_search.rewards import CONDITION_WEIGHT, LENGTH_WEIGHT, Reward
from audiograft.prompt_search.search import Limits, Scorer, check_start, search_prompts
from audiograft.prompt_search.template import TemplateOptimiser
from audiograft.types import ConfigError, DataError

if TYPE_CHECKING:
    from audiograft.inference.engine import Engine

SETTINGS_NAME = "search.json"
_FREE = ("versions", "commit", "date")
"""Keys of search.json in which two calls of the same search may differ."""
TEMPLATE = "template"


def _is_address(optimiser: str) -> bool:
    return "://" in optimiser


@dataclass(frozen=True)
class Plan:
    """What a search is made of.

    Attributes:
        optimiser: `template`; a folder or hub id of a language model; or the address of an OpenAI-compatible endpoint.
        optimiser_model: name of the model at an endpoint.
        temperature: of a language model's sampling.
        prompt: to start with; that of the model's own question by default.
        question: folder of a detection.json whose question is asked, in place of the model's own.
        limits: when the search ends.
        n_clips: dev clips that each prompt is scored on; None takes all.
        condition_weight: see `Reward`.
        length_weight: likewise.
        batch_size: clips in one prefill.
        device: where models are opened.
        seed: of what is drawn.
        allow_outside: also take clips that do not lie below the folder of their manifest.

    Raises:
        ConfigError: a number out of its range, or an endpoint's model without an endpoint.
    """

    optimiser: str = TEMPLATE
    optimiser_model: str | None = None
    temperature: float = 0.9
    prompt: str | None = None
    question: Path | None = None
    limits: Limits = Limits()
    n_clips: int | None = None
    condition_weight: float = CONDITION_WEIGHT
    length_weight: float = LENGTH_WEIGHT
    batch_size: int = 64
    device: str = "auto"
    seed: int = 0
    allow_outside: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature must be above 0, not {self.temperature}: replies are drawn")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {self.batch_size}")
        if not (self.condition_weight >= 0 and self.length_weight >= 0):
            raise ConfigError("the weights of the reward must be 0 or more: 0 leaves a part out")
        is_endpoint = _is_address(self.optimiser)
        if is_endpoint and not self.optimiser_model:
            raise ConfigError("--optimiser-model is missing: name the model that the endpoint is to use")
        if self.optimiser_model and not is_endpoint:
            raise ConfigError("--optimiser-model is for an endpoint alone: leave it out, or give --optimiser an address")


@dataclass(frozen=True)
class Hooks:
    """Who is told of what; and what tests put in the place of a language model and of the model that is asked.

    Attributes:
        on_scored: called with each prompt that has a score.
        on_warning: told, when the model is opened, where it can hardly tell two of the answers apart.
        optimiser: in place of the plan's.
        scorer: in place of the model.
    """

    on_scored: Callable[[Scored], None] = lambda scored: None
    on_warning: Callable[[str], None] = lambda text: None
    optimiser: Optimiser | None = None
    scorer: Scorer | None = None


def run_search(
    model: str, dev: str | Path, out: Path, plan: Plan = Plan(), *, test: str | Path | None = None, hooks: Hooks = Hooks()
) -> dict[str, Any]:
    """Look for a better prompt on dev clips; then measure it once on test clips, where there are some.

    The folder has `history.jsonl` (each step, as it was made), `search.json`, `result.json`, `memory.json`, `best_prompt.txt`, `detection.json` (the
    question with the best prompt), `curve.png`, `report.html`, and with test clips `test.json` and the runs in `test/`. The same call goes on where
    an interrupted one stopped.

    Args:
        model: `tiny`, a model folder, or a hub id.
        dev: manifest with a `label` a row; the search sees nothing else.
        out: folder of the search; made where it does not exist.
        plan: what it is made of.
        test: manifest of the test clips; also of a later call.
        hooks: who is told.

    Returns:
        Content of result.json.

    Raises:
        ConfigError: an option or a model that can't be used.
        DataError: a manifest that can't be used, a folder of another search, or a winner that was measured on other clips.
        OptimiserError: the optimiser can't be used.
    """
    question = _question(model, plan)
    dev_clips = read_dev(dev, question.labels, plan.n_clips, plan.seed, plan.allow_outside)
    test_clips = None if test is None else read_test(test, dev_clips, question.labels, plan.allow_outside)
    optimiser = hooks.optimiser or make_optimiser(plan, question, dev_clips)
    check_start(question.prompt, question.answers, plan.limits, len(dev_clips.samples))
    _make(out)
    if test_clips is not None:
        check_lock(out, test_clips)
    engine = _opener(model, plan.device, question, hooks.on_warning)
    scorer = hooks.scorer or _model_scorer(engine, question, dev_clips, plan.batch_size)
    reward = Reward(question.labels, dev_clips.labels, dev_clips.conditions, plan.condition_weight, plan.length_weight)
    start_s = time.perf_counter()
    with Journal.open(out / HISTORY_NAME) as journal:
        _claim(out, _settings(model, plan, question, dev_clips, optimiser), journal)
        known = journal.n_clips_scored
        found = search_prompts(question.prompt, question.answers, optimiser, scorer, reward, journal, plan.limits, plan.seed, hooks.on_scored)
        wall_s, fresh = time.perf_counter() - start_s, journal.n_clips_scored - known
        speed = {"wall_s": round(wall_s, 3), "clips_per_s": round(fresh / wall_s, 1)} if fresh else {}
        measured = None
        if test_clips is not None:
            measured = measure_once(out, test_clips, question, found.best.prompt, engine, plan.batch_size, plan.allow_outside)
        return write_results(out, found, question, dev_clips, plan.limits, measured, speed)


def _opener(model: str, device: str, question: ClosedQuestion, on_warning: Callable[[str], None]) -> Callable[[], Engine]:
    """Opens the model at its first call, and looks whether it has met the answers."""

    @cache
    def engine() -> Engine:
        from audiograft.inference.engine import Engine
        from audiograft.train.question import held_for_one

        opened = Engine.load(model, device)
        found = spellings(opened.processor.tokenizer, question.answers)
        if same := held_for_one({question.answers[label]: ids for label, ids in found.items()}, opened.model):
            on_warning(f"{same}, so that prompts can hardly matter: give --question a detection.json with answers that it has met, such as a and b")
        return opened

    return engine


def make_optimiser(plan: Plan, question: ClosedQuestion, dev: LabelledClips) -> Optimiser:
    """The optimiser that a plan names; a language model is opened at its first turn.

    Raises:
        OptimiserError: an address that is none.
    """
    if plan.optimiser == TEMPLATE:
        return TemplateOptimiser(question.answers, dev.examples())
    if _is_address(plan.optimiser):
        import os

        from audiograft.prompt_search.endpoint import KEY_VARIABLE, EndpointOptimiser

        return EndpointOptimiser(plan.optimiser, str(plan.optimiser_model), question.answers, plan.temperature, os.environ.get(KEY_VARIABLE))
    from audiograft.prompt_search.local import LocalOptimiser

    return LocalOptimiser(plan.optimiser, question.answers, plan.temperature, plan.device)


def _question(model: str, plan: Plan) -> ClosedQuestion:
    question = question_for(model) if plan.question is None else ClosedQuestion.read(plan.question)
    return question if plan.prompt is None else replace(question, prompt=plan.prompt)


def _model_scorer(engine: Callable[[], Engine], question: ClosedQuestion, dev: LabelledClips, batch_size: int) -> Scorer:
    from audiograft.prompt_search.scorer import ModelScorer

    return ModelScorer(engine, question, dev.load, batch_size)


def _settings(model: str, plan: Plan, question: ClosedQuestion, dev: LabelledClips, optimiser: Optimiser) -> dict[str, Any]:
    """What search.json says: all that decides what is found, and what it was made with."""
    return {
        "model": model,
        "model_fingerprint": model_fingerprint(model),
        "dev_sha256": dev.sha256,
        "dev_clips": len(dev.samples),
        "prompt": question.prompt,
        "system": question.system,
        "answers": dict(question.answers),
        "optimiser": dict(optimiser.description),
        "condition_weight": plan.condition_weight,
        "length_weight": plan.length_weight,
        **asdict(plan.limits),
        "seed": plan.seed,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: can't be used as a folder ({error.strerror}): choose another --out") from error


def _claim(out: Path, settings: Mapping[str, Any], journal: Journal) -> None:
    """Write search.json, or find it to be that of the same search. One that had no round yet, as where its optimiser was misspelt, gives way."""
    told = out / SETTINGS_NAME
    if told.is_file():
        try:
            found = json.loads(told.read_text(encoding="utf-8"))
            differs = [key for key in settings if key not in _FREE and found.get(key) != settings[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{told}: can't be read: choose another --out") from error
        if not differs:
            return
        if journal.n_rounds:
            raise DataError(f"{out}: holds another search (its {differs[0].replace('_', ' ')} differs): choose another --out")
    elif journal.n_rounds:
        raise DataError(f"{out}: holds a {HISTORY_NAME} without its {SETTINGS_NAME}: choose another --out")
    journal.clear()
    write_json(told, settings)
