"""A whole search: dev alone chooses, test is heard once, and the folder belongs to one search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
from searched import WordScorer

from audiograft.data.manifest import read_rows
from audiograft.evaluate import run as evaluate_run
from audiograft.inference.choices import DEFAULT_QUESTION, ClosedQuestion
from audiograft.prompt_search import held_out
from audiograft.prompt_search.clips import read_dev
from audiograft.prompt_search.held_out import compare_prompts, doubt
from audiograft.prompt_search.run import Hooks, Plan, run_search
from audiograft.prompt_search.search import Limits
from audiograft.types import AudiograftError, ConfigError, DataError

SHORT = Limits(rounds=4)
LABELS = DEFAULT_QUESTION.labels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A graft of random weights."""
    folder = tmp_path_factory.mktemp("model")
    graft, processor = builders.graft()
    graft.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two test runs: a dozen plots, which are no concern of a search."""
    monkeypatch.setattr(evaluate_run, "write_reports", lambda folder: None)


def fake(manifest: Path, **options: Any) -> Hooks:
    """A model that hears a word."""
    return Hooks(scorer=WordScorer([row["label"] for _, row in read_rows(manifest)], **options))


def test_the_folder_has_all_that_was_found(make_bench: Callable[..., Path], tmp_path: Path, model: str) -> None:
    dev, out = make_bench(), tmp_path / "out"
    result = run_search(model, dev, out, Plan(limits=SHORT), hooks=fake(dev))
    assert {path.name for path in out.iterdir()} == {
        "best_prompt.txt", "curve.png", "detection.json", "history.jsonl", "memory.json", "report.html", "result.json", "search.json",
    }  # fmt: skip
    assert json.loads((out / "result.json").read_text()) == json.loads(json.dumps(result))
    best = result["best"]["prompt"]
    assert "carefully" in best
    assert (out / "best_prompt.txt").read_text() == best + "\n"
    memory = json.loads((out / "memory.json").read_text())["best"]
    assert memory[0] == result["best"]
    assert [row["reward"] for row in memory] == sorted((row["reward"] for row in memory), reverse=True)
    question = ClosedQuestion.read(out)
    assert (question.prompt, question.answers, question.system) == (best, DEFAULT_QUESTION.answers, DEFAULT_QUESTION.system)
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert "not measured" in page
    assert "<script" not in page
    assert result["clips_scored"] == 40 * result["prompts_scored"]
    assert result["test"] is None


def test_what_was_fitted_to_another_prompt_goes(make_bench: Callable[..., Path], tmp_path: Path, model: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    ClosedQuestion("Pick: A) SPEECH or B) NONSPEECH?", DEFAULT_QUESTION.answers, None, 2.5, 0.3, {"clips": 3}).write(own)
    dev = make_bench()
    run_search(model, dev, tmp_path / "out", Plan(question=own, limits=SHORT), hooks=fake(dev))
    found = ClosedQuestion.read(tmp_path / "out")
    assert (found.temperature, found.threshold, found.chosen_on, found.system) == (1.0, 0.5, None, None)


def test_test_clips_are_heard_once(make_bench: Callable[..., Path], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dev, test, out = make_bench(), make_bench("test", 24, seed=99), tmp_path / "out"
    result = run_search(model, dev, out, Plan(limits=SHORT), test=test, hooks=fake(dev))
    figures = result["test"]["figures"]
    runs = {name: [row for _, row in read_rows(out / "test" / name / "predictions.jsonl")] for name in ("start", "winner")}
    right = {name: [row["predicted"] == row["label"] for row in rows] for name, rows in runs.items()}
    assert figures["clips"] == 24
    assert figures["winner"]["accuracy"] == sum(right["winner"]) / 24
    for name, prompt in (("start", DEFAULT_QUESTION.prompt), ("winner", result["best"]["prompt"])):
        assert json.loads((out / "test" / name / "run.json").read_text())["prompt"] == prompt
    assert figures["mcnemar"]["only_winner"] == sum(b and not a for a, b in zip(right["start"], right["winner"], strict=True))
    assert figures["difference"]["balanced_accuracy"] == pytest.approx(figures["winner"]["balanced_accuracy"] - figures["start"]["balanced_accuracy"])
    page = (out / "report.html").read_text()
    assert "favour" in page
    why = doubt(result["test"])
    assert ("keep the old prompt" in page) == (why is not None)

    def heard_again(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the test clips were heard again")

    monkeypatch.setattr(held_out, "evaluate", heard_again)
    again = run_search(model, dev, out, Plan(limits=SHORT), test=test, hooks=fake(dev, die_after=0))
    assert again["test"] == result["test"]
    other = make_bench("other", 24, seed=500, split="test")
    with pytest.raises(DataError, match=r"test\.json: the winner was measured on .*test\.jsonl already"):
        run_search(model, dev, out, Plan(limits=SHORT), test=other, hooks=fake(dev))


def test_a_test_that_died_goes_on_with_the_same_clips_alone(
    make_bench: Callable[..., Path], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev, test, out = make_bench(), make_bench("test", 8, seed=99), tmp_path / "out"

    def die(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(held_out, "evaluate", die)
    with pytest.raises(KeyboardInterrupt):
        run_search(model, dev, out, Plan(limits=SHORT), test=test, hooks=fake(dev))
    monkeypatch.setattr(held_out, "evaluate", evaluate_run.evaluate)
    with pytest.raises(DataError, match="already"):
        run_search(model, dev, out, Plan(limits=SHORT), test=make_bench("other", 8, seed=500, split="test"), hooks=fake(dev))
    assert run_search(model, dev, out, Plan(limits=SHORT), test=test, hooks=fake(dev, die_after=0))["test"]["measured"]


def test_a_real_model_is_asked_on_the_clips_that_were_drawn(make_bench: Callable[..., Path], tmp_path: Path, model: str) -> None:
    dev = make_bench()
    result = run_search(model, dev, tmp_path / "out", Plan(limits=Limits(rounds=1, candidates=2), n_clips=10))
    assert result["dev"]["clips"] == 10
    assert result["prompts_scored"] == 3
    assert result["clips_scored"] == 30
    assert 0 <= result["best"]["balanced_accuracy"] <= 1
    assert result["clips_per_s"] > 0


def test_another_search_does_not_go_into_the_folder(make_bench: Callable[..., Path], tmp_path: Path, model: str) -> None:
    dev, out = make_bench(), tmp_path / "out"
    first = run_search(model, dev, out, Plan(limits=SHORT), hooks=fake(dev))
    speed = ("wall_s", "clips_per_s")
    again = run_search(model, dev, out, Plan(limits=SHORT), hooks=fake(dev, die_after=0))
    assert again == {key: value for key, value in first.items() if key not in speed}
    for plan, key in (
        (Plan(limits=SHORT, seed=1), "seed"),
        (Plan(limits=Limits(rounds=5)), "rounds"),
        (Plan(limits=SHORT, length_weight=0.1), "length weight"),
        (Plan(limits=SHORT, n_clips=10), "dev clips"),
        (Plan(limits=SHORT, prompt="A) SPEECH or B) NONSPEECH?"), "prompt"),
        (Plan("http://localhost/v1", "m", limits=SHORT), "optimiser"),
    ):
        with pytest.raises(DataError, match=rf"holds another search \(its {key} differs\): choose another --out"):
            run_search(model, dev, out, plan, hooks=fake(dev))
    (out / "search.json").unlink()
    with pytest.raises(DataError, match=r"history\.jsonl without its search\.json"):
        run_search(model, dev, out, Plan(limits=SHORT), hooks=fake(dev))


def test_a_search_that_had_no_round_gives_way(make_bench: Callable[..., Path], tmp_path: Path, model: str) -> None:
    dev, out = make_bench(), tmp_path / "out"
    with pytest.raises(ConfigError, match="unknown model nowhere"):
        run_search(model, dev, out, Plan("nowhere", limits=SHORT), hooks=fake(dev))
    assert run_search(model, dev, out, Plan(limits=SHORT, length_weight=0), hooks=fake(dev))["start"]["reward"] == pytest.approx(1.25 * 0.6)


def test_drawn_clips_hold_all_conditions_and_classes_alike(make_bench: Callable[..., Path]) -> None:
    dev = make_bench(n_clips=80)
    drawn = read_dev(dev, LABELS, 16, seed=3)
    cells = list(zip(drawn.conditions, drawn.labels, strict=True))
    assert sorted(cells) == sorted(set(cells)) * 2 or all(cells.count(cell) == 2 for cell in cells)
    assert len(set(cells)) == 8
    assert "200 ms, 20 dB" in drawn.conditions
    assert drawn == read_dev(dev, LABELS, 16, seed=3)
    assert drawn != read_dev(dev, LABELS, 16, seed=4)
    few = read_dev(dev, LABELS, 6, seed=3)
    assert few.labels.count("SPEECH") == 3


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"split": "test"}, "row 'dev-0' is of the test split, which is for the winner alone"),
        ({"label": "SPEECH"}, "has no row of NONSPEECH"),
        ({"label": None}, "row 'dev-0' has no \"label\": each row needs one of SPEECH, NONSPEECH"),
        ({"label": "dog"}, "has the label 'dog'"),
        ({"audio": ["0.wav", "1.wav"]}, "has 2 clips"),
        ({"prompt": "What?"}, "has a prompt or a text of its own"),
    ],
)
def test_dev_rows_that_can_not_choose_are_named(make_bench: Callable[..., Path], keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        read_dev(make_bench(**keys), LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "keys", "complaint"),
    [
        ("dev", {}, "the winner was chosen on these clips"),
        ("copy", {"split": "dev"}, "is of the dev split"),
        ("test", {"seed": 99, "recording": "dev-3"}, "shares recordings with the dev clips"),
        ("test", {"seed": 99, "speaker": "anna"}, "shares speakers with the dev clips"),
    ],
)
def test_a_test_that_dev_knows_is_refused_before_the_search(
    make_bench: Callable[..., Path], tmp_path: Path, model: str, name: str, keys: dict[str, Any], complaint: str
) -> None:
    dev = make_bench(speaker="Anna")
    test = dev if name == "dev" else make_bench(name, **keys)
    with pytest.raises(DataError, match=complaint):
        run_search(model, dev, tmp_path / "out", Plan(limits=SHORT), test=test, hooks=fake(dev, die_after=0))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Plan("http://localhost/v1"), "--optimiser-model is missing"),
        (lambda: Plan(optimiser_model="m"), "--optimiser-model is for an endpoint alone"),
        (lambda: Plan(temperature=0), "temperature must be above 0"),
        (lambda: Plan(batch_size=0), "batch_size must be 1 or more"),
        (lambda: Plan(length_weight=-1), "weights of the reward"),
        (lambda: Limits(rounds=0), "rounds must be 1 or more"),
        (lambda: Limits(budget=0), "budget must be 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_named(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (
            Plan(prompt="Speech?"),
            r"the prompt to start with, 'Speech\?', can't be used \(not 10 to 300 characters\): give one with --prompt that names A and B",
        ),
        (Plan(prompt=""), r"the prompt to start with, '', can't be used .*: give one with --prompt that asks the question: the model's own is empty"),
        (Plan(n_clips=1), "has 2 classes and 40 rows: take a number between the two"),
        (Plan(n_clips=41), "has 2 classes and 40 rows"),
        (Plan(limits=Limits(budget=10)), "does not pay for one prompt"),
        (Plan("nowhere"), "unknown model nowhere"),
        (Plan(question=Path("nowhere")), "nowhere/detection.json: can't be read"),
    ],
)
def test_a_search_that_can_not_begin_says_why(make_bench: Callable[..., Path], tmp_path: Path, model: str, plan: Plan, complaint: str) -> None:
    dev = make_bench()
    with pytest.raises(AudiograftError, match=complaint):
        run_search(model, dev, tmp_path / "out", plan, hooks=fake(dev))
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("value", "low", "winner", "told"),
    [
        (0.1, 0.02, "new", None),
        (0.1, -0.01, "new", "not shown to be better on test (the interval of the difference holds zero): keep the old prompt"),
        (0.1, None, "new", "not shown to be better on test (their difference has no interval): keep the old prompt"),
        (-0.1, -0.2, "new", "is worse on test: keep the old prompt"),
        (0.0, 0.0, "old", "no prompt was better on dev: keep the old prompt"),
    ],
)
def test_a_winner_that_is_not_shown_to_be_better_is_doubted(value: float, low: float | None, winner: str, told: str | None) -> None:
    difference = {"balanced_accuracy": value, "interval": {"low": low, "high": None if low is None else 0.3}}
    found = doubt({"prompts": {"start": "old", "winner": winner}, "figures": {"difference": difference}})
    assert found is None if told is None else told in str(found)
    assert doubt(None) is None


def test_answers_that_the_model_holds_for_one_are_warned_of(make_bench: Callable[..., Path], tmp_path: Path, model: str) -> None:
    import torch

    from audiograft.inference.choices import spellings

    def warnings(folder: str) -> list[str]:
        found: list[str] = []
        out = tmp_path / f"out-{Path(folder).name}"
        run_search(folder, dev, out, Plan(limits=Limits(rounds=1, candidates=1), n_clips=4), hooks=Hooks(on_warning=found.append))
        return found

    dev = make_bench()
    assert warnings(model) == []
    graft, processor = builders.graft()
    first, second = spellings(processor.tokenizer, DEFAULT_QUESTION.answers).values()
    with torch.no_grad():
        head = graft.get_output_embeddings().weight
        head[[*first, *second]] = head[first[0]].clone()
    graft.save_pretrained(tmp_path / "same")
    processor.save_pretrained(tmp_path / "same")
    [warning] = warnings(str(tmp_path / "same"))
    assert "holds A and B for nearly the same token (cosine 1.000)" in warning
    assert "--question" in warning


def test_the_paired_difference_counts_recordings_not_clips() -> None:
    from audiograft.evaluate.predictions import Prediction

    def rows(right: Callable[[int], bool], n_copies: int) -> list[Prediction]:
        found = []
        for number in range(20):
            label, other = ("SPEECH", "NONSPEECH") if number % 2 else ("NONSPEECH", "SPEECH")
            found += [
                Prediction(f"{number}-{copy}", label, label if right(number) else other, task="detection", recording=str(number))
                for copy in range(n_copies)
            ]
        return found

    once, often = (compare_prompts(rows(lambda number: number >= 8, n), rows(lambda number: number >= 3, n), LABELS)["difference"] for n in (1, 10))
    assert once["balanced_accuracy"] == often["balanced_accuracy"] == pytest.approx(0.25)
    assert once["interval"]["low"] < 0.25 < once["interval"]["high"]
    assert (often["interval"]["low"], often["interval"]["high"]) == pytest.approx((once["interval"]["low"], once["interval"]["high"]), abs=1e-6)
    same = compare_prompts(rows(bool, 2), rows(bool, 2), LABELS)
    assert same["difference"]["interval"]["low"] == same["difference"]["interval"]["high"] == 0
    assert same["mcnemar"]["p_value"] == 1
