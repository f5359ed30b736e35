"""Labels that are learnt as answers to a closed question: rows, loss mask, weights, and what the run leaves."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch.nn import functional

from audiograft.data.augment.chain import Augmenter, AugmentRecipe
from audiograft.data.shuffling import swap_classes
from audiograft.inference.choices import ClosedQuestion, score_choices, spellings
from audiograft.messages import conversation
from audiograft.model import load_model
from audiograft.model.merge import merge_adapter
from audiograft.train.collator import Collator
from audiograft.train.dataset import augmented_example, example
from audiograft.train.deafness import Condition, DeafnessReport, check_deafness
from audiograft.train.detection import DetectionRecipe
from audiograft.train.question import alike, trained_question
from audiograft.train.recipe import DataRecipe, LoraRecipe, load_recipe
from audiograft.train.rows import Wording, check_row, load_clips, read_samples
from audiograft.train.run import dry_run, train
from audiograft.train.validation import score
from audiograft.train.weighting import class_weights, focal_loss, weighed
from audiograft.types import ConfigError, DataError, Rejection, Sample

ANSWERS = {"SPEECH": "A", "NONSPEECH": "B"}
PROMPT = "speech?"
MINIMAL = "stage: finetune\nmodel: m\noutput_dir: out\nprompt: 'speech?'\ndata: {train: rows}\n"


def write_bench(folder: Path, n_clips: int = 8, duration_s: float = 0.2) -> Path:
    """Tones that rise from clip to clip are speech; noise is not, nor is silence, which is the second clip."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n_clips):
        speech = number % 2 == 0
        noise = np.zeros if number == 1 else lambda n: 0.1 * rng.standard_normal(n)
        waveform = builders.tone(duration_s, 400.0 + 40 * number, number) if speech else noise(round(16_000 * duration_s))
        soundfile.write(folder / f"{number}.wav", waveform, 16_000, subtype="FLOAT")
        row = {"id": f"clip-{number}", "audio": f"{number}.wav", "label": "SPEECH" if speech else "NONSPEECH", "duration_s": duration_s}
        rows.append(row | {"recording": f"r{number}", "speaker": f"s{number}" if speech else None})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def detect(recipe, bench: Path) -> Any:
    """A few steps of learning labels."""
    detection = DetectionRecipe(ANSWERS, loss_on="answer")
    lora = LoraRecipe(rank=2, language_model=("attention",))
    return replace(
        recipe, stage="finetune", data=DataRecipe((str(bench),)), prompt=PROMPT, detection=detection, lora=lora, tokens_per_batch=400, save="adapter"
    )


def usable(manifest: Path, processor: Any, detection: DetectionRecipe) -> list[Any]:
    wording = Wording(PROMPT, detection=detection)
    rows = [check_row(sample, processor) for sample in read_samples([str(manifest)], PROMPT, detection=detection)]
    assert not [row for row in rows if isinstance(row, Rejection)]
    return [replace(row, answer_only=wording.answer_only) for row in rows]


def batch_of(rows: list[Any], processor: Any) -> dict[str, Any]:
    return Collator(processor)([example(row, load_clips(row), row.padded, processor) for row in rows])


# The recipe.


def test_a_section_is_read_and_stands_in_the_record(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL + "detection: {answers: {SPEECH: A, NONSPEECH: B}, class_weights: {NONSPEECH: 2}, focal_gamma: 1.5, loss_on: answer}\n")
    recipe = load_recipe(path, ["detection.system=You listen.", "detection.answers.SPEECH=C"])
    expected = {"answers": {"SPEECH": "C", "NONSPEECH": "B"}, "system": "You listen.", "loss_on": "answer", "class_weights": {"NONSPEECH": 2.0}}
    assert recipe.as_dict()["detection"] == expected | {"focal_gamma": 1.5}
    assert load_recipe(path, ["detection.class_weights=balanced"]).detection.class_weights == "balanced"


@pytest.mark.parametrize(
    ("section", "needle"),
    [
        ("{answer: {SPEECH: A, NONSPEECH: B}}", r"unknown key detection\.answer: the closest valid one is detection\.answers"),
        ("{system: Hear.}", r"the key detection\.answers is missing"),
        ("{answers: {SPEECH: A}}", r"detection\.answers must be two labels or more"),
        ("{answers: {SPEECH: yes, NONSPEECH: no}}", r"detection\.answers: True is no text: .* quotes"),
        ("{answers: {SPEECH: A, NONSPEECH: A}}", r"two labels have the same answer"),
        ("{answers: {SPEECH: A, NONSPEECH: B}, loss_on: end}", r"detection\.loss_on must be one of response, answer"),
        ("{answers: {SPEECH: A, NONSPEECH: B}, focal_gamma: -1}", r"detection\.focal_gamma must be 0 or more"),
        ("{answers: {SPEECH: A, NONSPEECH: B}, class_weights: {NOSPEECH: 2}}", r"class_weights\.NOSPEECH: the closest valid one is .*NONSPEECH"),
        ("{answers: {SPEECH: A, NONSPEECH: B}, class_weights: {SPEECH: 0}}", r"class_weights\.SPEECH must be above 0"),
        ("{answers: {SPEECH: A, NONSPEECH: B}, class_weights: even}", r"class_weights must be balanced, or a weight"),
    ],
)
def test_a_wrong_section_is_one_line(section: str, needle: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL + f"detection: {section}\n")
    with pytest.raises(ConfigError, match=needle) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ("prompt=null", "detection needs a prompt"),
        ("loss=kl", "detection and loss: kl exclude each other"),
    ],
)
def test_what_the_section_needs(change: str, needle: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL + "detection: {answers: {SPEECH: A, NONSPEECH: B}}\n")
    with pytest.raises(ConfigError, match=needle):
        load_recipe(path, [change])


# Rows.


def test_a_label_becomes_the_answer_to_the_question(graft, bench: Path) -> None:
    _, processor = graft
    detection = DetectionRecipe(ANSWERS, system="You listen.")
    rows = usable(bench, processor, detection)
    assert [row.target for row in rows] == ["A", "B"] * 4
    question = ClosedQuestion(PROMPT, ANSWERS, "You listen.")
    assert all(conversation(row.sample) == question.messages() for row in rows)


@pytest.mark.parametrize(("answers", "said"), [(None, "detection.answers"), ({"SPEECH": "A", "MUSIC": "B"}, "'NONSPEECH' has no answer")])
def test_a_label_without_an_answer_is_a_rejection_of_its_own_kind(graft, bench: Path, answers, said: str) -> None:
    detection = None if answers is None else DetectionRecipe(answers)
    checked = [check_row(sample, graft[1]) for sample in read_samples([str(bench)], PROMPT, detection=detection)]
    rejected = [row for row in checked if isinstance(row, Rejection)]
    assert len(rejected) == (8 if answers is None else 4)
    assert {row.kind for row in rejected} == {"label"}
    assert said in rejected[0].reason


def test_silence_may_be_a_class_but_not_speech(graft, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "0.wav", np.zeros(3200), 16_000)
    silent = Sample("silent", (str(tmp_path / "0.wav"),), label="NONSPEECH", response="B", prompt=PROMPT, duration_s=0.2)
    assert not isinstance(check_row(silent, graft[1]), Rejection)
    for wrong in (replace(silent, label="SPEECH", response="A"), replace(silent, label=None), replace(silent, text="hello")):
        assert check_row(wrong, graft[1]).kind == "silence"


def test_rows_of_other_kinds_stay_as_they_are() -> None:
    wording = Wording(PROMPT, detection=DetectionRecipe(ANSWERS, system="You listen."))
    talk = ({"role": "user", "content": "<audio> what?"},)
    assert wording.apply(Sample("a", ("a.wav",), messages=talk, response="x")).messages == talk
    assert wording.apply(Sample("a", ("a.wav",), text="hello", label="SPEECH")).target == "hello"
    assert wording.apply(Sample("a", prompt="two?", response="three")).messages == ()


def test_clips_of_200_ms_go_through_augmentation(graft, bench: Path) -> None:
    _, processor = graft
    rows = usable(bench, processor, DetectionRecipe(ANSWERS))
    settings = AugmentRecipe(gain_db=(-20.0, 3.0), noise=("white", "pink"), noise_share=1.0, reverb=("synthetic",), reverb_share=1.0, time_masks=2)
    augmenter = Augmenter(settings, seed=0)
    for row in rows:
        item = augmented_example(row, load_clips(row), row.sample.id, augmenter, processor)
        assert all(np.isfinite(features).all() and features.shape[1] == 20 for features in item["features"])


# The loss.


@pytest.mark.parametrize(("loss_on", "carrying"), [("answer", 1), ("response", 2)])
def test_one_token_of_each_row_carries_loss(graft, bench: Path, loss_on, carrying: int) -> None:
    _, processor = graft
    batch = batch_of(usable(bench, processor, DetectionRecipe(ANSWERS, loss_on=loss_on)), processor)
    assert ((batch["labels"] != -100).sum(1) == carrying).all()
    assert batch["classes"] == ["SPEECH", "NONSPEECH"] * 4
    found = spellings(processor.tokenizer, ANSWERS)
    for name, labels in zip(batch["classes"], batch["labels"], strict=True):
        # What is learnt is what the scorer looks at.
        assert labels[labels != -100][0] in found[name]


def test_the_drawn_batch_marks_the_answer_alone(detect) -> None:
    drawn = dry_run(detect)
    assert "8 carry loss" in drawn
    marked = [line.split("*")[1].strip() for line in drawn.splitlines()[1:] if "*" in line]
    assert len(marked) == 3
    assert set(marked) <= {"A", "B"}
    assert "and 5 more rows, not drawn" in drawn


@given(
    gamma=st.floats(0.0, 5.0), weights=st.lists(st.floats(0.1, 10), min_size=3, max_size=3), scale=st.sampled_from([0.1, 3.0, 100.0])
)  # fmt: skip
def test_focal_loss_is_the_formula(gamma: float, weights: list[float], scale: float) -> None:
    logits = scale * torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 6])
    p = logits.float().double().softmax(1)[range(3), targets]
    expected = (torch.tensor(weights, dtype=torch.float64) * (1 - p) ** gamma * -p.clamp(min=1e-300).log()).sum()
    logits.requires_grad_(True)
    loss = focal_loss(logits, targets, torch.tensor(weights), gamma)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_a_gamma_of_0_is_cross_entropy_bit_for_bit() -> None:
    logits, targets = torch.randn(9, 11), torch.randint(11, (9,))
    plain = functional.cross_entropy(logits, targets, reduction="none").sum()
    assert torch.equal(focal_loss(logits, targets, torch.ones(9), 0.0), plain)


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return model.projector.linear_2.weight.grad.clone()


def test_weights_scale_the_gradient_of_their_rows(bench: Path) -> None:
    model, processor = builders.graft()
    rows = usable(bench, processor, DetectionRecipe(ANSWERS))

    def plain(part: list[Any]) -> torch.Tensor:
        batch = batch_of(part, processor)
        del batch["ids"], batch["audio_s"], batch["classes"]
        return gradient(model, model(**batch, num_items_in_batch=16).loss)

    batch = batch_of(rows, processor)
    classes = batch.pop("classes")
    del batch["ids"], batch["audio_s"]
    together = gradient(model, weighed(model, classes, {"NONSPEECH": 3.0}, 0.0)(num_items_in_batch=16, **batch).loss)
    by_hand = plain(rows[::2]) + 3 * plain(rows[1::2])
    assert by_hand.abs().max() > 1e-4
    torch.testing.assert_close(together, by_hand, rtol=1e-4, atol=1e-7)


def test_rows_without_a_class_are_not_weighed(graft, bench: Path) -> None:
    model, processor = graft
    rows = usable(bench, processor, DetectionRecipe(ANSWERS))[:2]
    rows[1] = replace(rows[1], sample=replace(rows[1].sample, label=None))
    batch = batch_of(rows, processor)
    classes = batch.pop("classes")
    assert classes == ["SPEECH", None]
    del batch["ids"], batch["audio_s"]
    losses = [weighed(model, classes, {"SPEECH": 5.0}, gamma)(**batch).loss for gamma in (0.0, 40.0)]
    own = functional.cross_entropy(model(**batch).logits, batch["labels"][batch["labels"] != -100], reduction="none")
    torch.testing.assert_close(losses[0], (5 * own[:2].sum() + own[2:].sum()) / 4)
    assert losses[1] >= own[2:].sum() / 4


def test_balanced_weights_let_each_label_weigh_the_same(graft, bench: Path) -> None:
    rows = usable(bench, graft[1], DetectionRecipe(ANSWERS))
    uneven = DetectionRecipe(ANSWERS, class_weights="balanced")
    weights = class_weights(uneven, [*rows[::2], rows[1]])
    assert weights == {"SPEECH": 5 / 8, "NONSPEECH": 5 / 2}
    assert 4 * weights["SPEECH"] == weights["NONSPEECH"]
    with pytest.raises(DataError, match="no row with the label NONSPEECH"):
        class_weights(uneven, rows[::2])


# Runs.


@pytest.mark.parametrize("section", [{}, {"class_weights": {"NONSPEECH": 3.0}, "focal_gamma": 2.0}])
def test_accumulated_batches_equal_one_large_batch(detect, run_quietly, tmp_path: Path, section: dict[str, Any]) -> None:
    detection = DetectionRecipe(ANSWERS, loss_on="answer", **section)

    def one_step(tokens_per_batch: int, accumulation: int) -> tuple[float, list[torch.Tensor]]:
        folder = tmp_path / f"run-{accumulation}"
        changes = {"max_steps": 1, "tokens_per_batch": tokens_per_batch, "gradient_accumulation_steps": accumulation, "max_grad_norm": 0.0}
        result = run_quietly(replace(detect, detection=detection), output_dir=str(folder), **changes)
        state = torch.load(folder / "checkpoint-1" / "optimizer.pt", weights_only=True)["state"]
        return result["log"][0]["loss"], [state[key]["exp_avg"] for key in sorted(state)]

    whole_loss, whole_gradients = one_step(400, 1)
    split_loss, split_gradients = one_step(100, 4)
    assert math.isclose(whole_loss, split_loss, rel_tol=1e-5)
    assert max(moment.abs().max() for moment in whole_gradients) > 1e-5
    torch.testing.assert_close(split_gradients, whole_gradients, atol=1e-7, rtol=1e-3)


def test_a_run_learns_its_labels_and_leaves_its_question(detect, bench: Path) -> None:
    page = io.StringIO()
    detection = replace(detect.detection, system="You listen.", class_weights="balanced", focal_gamma=0.5)
    data = DataRecipe((str(bench),), validation=str(bench))
    recipe = replace(detect, detection=detection, data=data, max_steps=60, learning_rate=5e-3, eval_steps=60, save_steps=100, sample_transcripts=1)
    result = train(recipe, console=Console(file=page, width=140))
    assert result["validation"]["eval_accuracy"] == 1.0
    assert "eval_wer" not in result["validation"]
    assert not result["deaf"]
    true, shuffled, _ = result["deafness"]["conditions"]
    # Each clip got one of the other class.
    assert (true["accuracy"], shuffled["accuracy"], true["wer"]) == (1.0, 0.0, None)
    assert "accuracy 100.0%" in page.getvalue()
    assert "WER" not in page.getvalue()
    said = [line.split()[1] for line in page.getvalue().splitlines() if line.startswith(("  reference:", "  hypothesis:"))]
    assert len(said) == 2
    assert said[0] == said[1] in ANSWERS
    folder = Path(recipe.output_dir)
    question = ClosedQuestion.read(folder)
    assert question == ClosedQuestion(PROMPT, ANSWERS, "You listen.", temperature=1.0, threshold=0.5, chosen_on=None)
    # The saved folder answers as the run did.
    rows = [json.loads(line) for line in bench.read_text().splitlines()]
    waveforms = [soundfile.read(bench.parent / row["audio"], dtype="float32")[0] for row in rows]
    model, processor = load_model(str(folder), torch.device("cpu"), torch.float32)
    scores = score_choices(model, processor, question, waveforms)
    assert [question.labels[column] for column in scores.argmax(1)] == [row["label"] for row in rows]
    merge_adapter(folder, folder.parent / "merged")
    assert ClosedQuestion.read(folder.parent / "merged") == question


def test_a_whole_model_has_its_question_too_until_another_run_ends_there(detect, run_quietly, clips: Path) -> None:
    run_quietly(detect, save="merged", max_steps=1)
    assert ClosedQuestion.read(detect.output_dir).answers == ANSWERS
    for checkpoint in Path(detect.output_dir).glob("checkpoint-*"):
        checkpoint.rename(checkpoint.with_name(f"old-{checkpoint.name}"))
    run_quietly(detect, save="merged", max_steps=1, detection=None, data=DataRecipe((str(clips),)))
    assert not (Path(detect.output_dir) / "detection.json").exists()


def test_a_resumed_run_equals_one_that_was_not_interrupted(detect, run_quietly, tmp_path: Path) -> None:
    detection = replace(detect.detection, class_weights="balanced", focal_gamma=2.0)
    recipe = replace(detect, detection=detection, tokens_per_batch=100, save_steps=2, save_total_limit=5)
    whole = run_quietly(recipe, output_dir=str(tmp_path / "whole"))
    run_quietly(recipe, output_dir=str(tmp_path / "cut"))
    for late in ("checkpoint-4", "checkpoint-6"):
        (tmp_path / "cut" / late).rename(tmp_path / late)
    resumed = run_quietly(recipe, output_dir=str(tmp_path / "cut"))
    assert [line["loss"] for line in resumed["log"] if "loss" in line] == [line["loss"] for line in whole["log"] if "loss" in line]
    weights = [(tmp_path / name / "projector.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_answers_must_be_single_tokens_and_say_so_before_training(detect, run_quietly) -> None:
    with pytest.raises(ConfigError, match="xylophone") as caught:
        run_quietly(detect, detection=DetectionRecipe({"SPEECH": "xylophone", "NONSPEECH": "B"}))
    assert "\n" not in str(caught.value)


def test_answers_that_the_head_holds_for_one_are_warned_of() -> None:
    model, processor = builders.graft()
    question = ClosedQuestion(PROMPT, ANSWERS)
    assert alike(question, model, processor) is None
    first, second = (spellings(processor.tokenizer, ANSWERS)[label] for label in ANSWERS)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head[list(second)] = 2 * head[first[0]]
    assert "A and B for nearly the same token (cosine 1.000)" in str(alike(question, model, processor))


def test_there_is_no_question_without_the_section(recipe, graft) -> None:
    assert trained_question(recipe, graft[1]) is None


# Validation and deafness.


def test_the_loss_of_validation_is_that_of_the_answer_alone(graft, bench: Path) -> None:
    model, processor = graft
    rows = usable(bench, processor, DetectionRecipe(ANSWERS, loss_on="answer"))
    question = ClosedQuestion(PROMPT, ANSWERS)
    found = score(model, processor, rows, [load_clips(row) for row in rows], question)
    batch = batch_of(rows, processor)
    names = ("input_ids", "attention_mask", "labels", "input_features", "feature_lengths")
    assert found.loss == pytest.approx(model(**{name: batch[name] for name in names}).loss.item(), rel=1e-5)
    assert found.answer_tokens == [1] * 8
    scores = score_choices(model, processor, question, [load_clips(row)[0] for row in rows])
    assert found.accuracy == np.mean([scores[n].argmax() == n % 2 for n in range(8)])
    assert found.wer is None


def test_transcripts_and_classes_are_scored_each_in_its_own_way(graft, bench: Path, clips: Path) -> None:
    model, processor = graft
    classed = usable(bench, processor, DetectionRecipe(ANSWERS))[:2]
    spoken = [check_row(sample, processor) for sample in read_samples([str(clips)])][:2]
    rows = [classed[0], spoken[0], classed[1], spoken[1]]
    waveforms = [load_clips(row) for row in rows]
    together = score(model, processor, rows, waveforms, ClosedQuestion(PROMPT, ANSWERS))
    apart = score(model, processor, spoken, [load_clips(row) for row in spoken])
    assert together.wer == apart.wer
    assert apart.accuracy is None
    assert together.accuracy is not None
    assert together.hypotheses[1::2] == apart.hypotheses
    assert set(together.hypotheses[::2]) <= {"A", "B"}


@given(labels=st.lists(st.sampled_from("abc"), min_size=2, max_size=30).filter(lambda labels: len(set(labels)) > 1), seed=st.integers(0, 99))
def test_swapped_clips_have_another_label(labels: list[str], seed: int) -> None:
    swapped = swap_classes([[number] for number in range(len(labels))], labels, seed)
    assert all(labels[other] != own for own, [other] in zip(labels, swapped, strict=True))


def test_two_even_classes_give_each_clip_away_once() -> None:
    swapped = swap_classes([[number] for number in range(10)], ["x", "y"] * 5, seed=1)
    assert sorted(number for [number] in swapped) == list(range(10))


@pytest.mark.parametrize(("accuracies", "deaf"), [((0.9, 0.1), False), ((0.5, 0.5), True), ((0.4, 0.6), True)])
def test_a_detector_listens_where_it_is_right_more_often_on_true_audio(accuracies: tuple[float, float], deaf: bool) -> None:
    conditions = (Condition("true", 1.0, None, accuracies[0]), Condition("shuffled", 2.0, None, accuracies[1]), Condition("silence", 2.0, None, 0.5))
    assert DeafnessReport(conditions, 0.001, clips=8, source="validation").deaf is deaf


def test_one_class_alone_can_be_checked_too(graft, bench: Path) -> None:
    model, processor = graft
    rows = usable(bench, processor, DetectionRecipe(ANSWERS))[::2] * 2
    rows = [replace(row, sample=replace(row.sample, id=f"{number}")) for number, row in enumerate(rows)]
    report = check_deafness(model, processor, rows, "validation", permutations=200, seed=0, question=ClosedQuestion(PROMPT, ANSWERS))
    assert report.deaf
