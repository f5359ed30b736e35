"""Closed questions: answers by exact log-odds from one prefill, the same for batches, pads and models of any kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from audiograft.inference.choices import (
    DEFAULT_QUESTION,
    ChoiceScorer,
    ClosedQuestion,
    choice_probs,
    choice_question,
    find_question,
    question_for,
    score_choices,
    speech_probs,
    spellings,
)
from audiograft.inference.prefill import Prefill
from audiograft.model import load_model
from audiograft.types import ConfigError, DataError

QUESTION = ClosedQuestion("Which one?", {"SPEECH": "A", "NONSPEECH": "B"}, "Listen.")
AT_THE_END = ClosedQuestion("Which one?\n<audio>", {"SPEECH": "A", "NONSPEECH": "B", "both": "C"}, "Listen.")
CLIPS = [
    builders.tone(seconds, hz, seed=number) for number, (seconds, hz) in enumerate([(0.5, 300), (1.1, 900), (0.2, 500), (0.5, 2000), (0.03, 700)])
]


def loud(model: Any) -> Any:
    """Sharp attention and loud ears, so that answers differ from clip to clip."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(6)
    return model


def open_model(kind: str, folder: Path) -> tuple[Any, Any]:
    if kind in builders.STOCK:
        return load_model(builders.stock_checkpoint(folder, kind))
    model, processor = builders.graft(kind, pad_to_window=False)
    return loud(model), processor


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "gemma2", "qwen2_vl", *builders.STOCK])
def test_batch_equals_single_equals_the_plain_forward_pass(kind: str, tmp_path: Path) -> None:
    model, processor = open_model(kind, tmp_path)
    clips = CLIPS[:3] if kind in builders.STOCK else CLIPS
    for asked in (QUESTION, AT_THE_END):
        # Voxtral takes no system turn.
        question = replace(asked, system=None) if kind == "voxtral" else asked
        together = score_choices(model, processor, question, clips, batch_size=5)
        alone = np.concatenate([score_choices(model, processor, question, [clip]) for clip in clips])
        np.testing.assert_allclose(together, alone, atol=2e-5)
        np.testing.assert_allclose(score_choices(model, processor, question, clips[::-1], batch_size=2), alone[::-1], atol=2e-5)
        ids = spellings(processor.tokenizer, question.answers)
        for clip, row in zip(clips, alone, strict=True):
            batch = processor([processor.build_prompt(question.messages())], audio=[clip])
            with torch.no_grad():
                logprobs = model(**batch).logits[0, -1].double().log_softmax(0)
            by_hand = torch.stack([logprobs[list(own)].logsumexp(0) for own in ids.values()]).log_softmax(0)
            np.testing.assert_allclose(row, by_hand.numpy(), atol=2e-5)
        assert np.ptp(alone[:, 0]) > 1e-3  # the clips are heard


@pytest.mark.parametrize("kind", ["qwen2", "qwen2_audio"])
def test_constrained_generate_takes_the_likeliest_spelling(kind: str, tmp_path: Path) -> None:
    """Greedy decoding of one token among the allowed ones (`prefix_allowed_tokens_fn`) is the arg max of what the log-odds are made of."""
    model, processor = open_model(kind, tmp_path)
    question = ClosedQuestion("Which one?", {letter: letter for letter in "ABCDE"})
    allowed = [ids[0] for ids in spellings(processor.tokenizer, question.answers).values()]
    assert all(len(ids) == 1 for ids in spellings(processor.tokenizer, question.answers).values())
    clips = [builders.tone(0.2 + 0.05 * number, 200.0 + 150 * number, seed=number) for number in range(6)]
    chosen = score_choices(model, processor, question, clips).argmax(1)
    for clip, best in zip(clips, chosen, strict=True):
        batch = processor([processor.build_prompt(question.messages())], audio=[clip])
        options = {"do_sample": False, "max_new_tokens": 1, "prefix_allowed_tokens_fn": lambda row, ids: allowed}
        assert int(model.generate(**batch, **options)[0, -1]) == allowed[best]
    assert len(set(chosen.tolist())) > 1


def test_all_spellings_of_an_answer_are_added_up() -> None:
    model, processor = builders.graft()
    tokenizer = processor.tokenizer
    tokenizer.add_tokens([" A", "\nB", "▁B", " AB"])
    ids = spellings(tokenizer, {"yes": "A", "no": "B"})
    assert ids["yes"] == tuple(sorted(tokenizer.convert_tokens_to_ids(["A", " A"])))
    assert set(tokenizer.convert_tokens_to_ids(["B", "\nB"])) <= set(ids["no"])
    wide, narrow = (
        ChoiceScorer(loud(model), processor, ClosedQuestion("Which?", answers)) for answers in ({"yes": "A", "no": "B"}, {"A": "A", "b": "c"})
    )
    logits = wide._prefill.last_logits(CLIPS, [*ids["yes"], *ids["no"]], 8)
    yes, no = np.exp(logits[:, : len(ids["yes"])]).sum(1), np.exp(logits[:, len(ids["yes"]) :]).sum(1)
    np.testing.assert_allclose(np.exp(wide.scores(CLIPS)[:, 0]), yes / (yes + no), rtol=1e-6)
    assert narrow.scores([]).shape == (0, 2)


def test_spellings_of_a_sentencepiece_tokenizer() -> None:
    pieces = {piece: number for number, piece in enumerate(["<unk>", "<s>", "</s>", "A", "▁A", "B", "▁B", "▁", "\n"])}
    core = Tokenizer(models.BPE(vocab=pieces, merges=[("▁", "A"), ("▁", "B")], unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    # "A" is tokenised as "▁A", and still the bare piece, which follows a line feed, counts.
    assert spellings(tokenizer, {"yes": "A", "no": "B"}) == {"yes": (3, 4), "no": (5, 6)}


def test_clips_longer_than_a_window_are_heard_in_one_prompt() -> None:
    model, processor = builders.graft()
    loud(model)
    noise = np.random.default_rng(0).standard_normal(33 * 16_000).astype(np.float32) * np.float32(0.1)
    together = score_choices(model, processor, QUESTION, [noise, CLIPS[0]])
    np.testing.assert_allclose(together[0], score_choices(model, processor, QUESTION, [noise])[0], atol=2e-5)
    assert abs(together[0, 0] - score_choices(model, processor, QUESTION, [noise[: 30 * 16_000]])[0, 0]) > 1e-6


def test_what_stands_in_front_of_the_clip_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = builders.graft()
    widths: list[int] = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids, **rest: widths.append(input_ids.shape[1]) or forward(self, input_ids, **rest))
    scorer = ChoiceScorer(model, processor, AT_THE_END)
    for _ in range(2):
        scorer.scores([CLIPS[0]] * 4, batch_size=2)
    whole = len(Prefill(model, processor, AT_THE_END.messages())._prompt_ids([50]))
    assert widths[0] > whole / 2
    assert widths[1:] == [whole - widths[0]] * 4


def test_a_model_with_eyes_or_lora_of_its_own_gets_the_whole_prompt(tmp_path: Path) -> None:
    for kind in ("qwen2_vl", "granite_speech"):
        model, processor = open_model(kind, tmp_path / kind)
        assert Prefill(model, processor, AT_THE_END.messages())._before is None


@given(
    st.lists(st.lists(st.floats(-80, 0), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.05, 20),
)
def test_probabilities_sum_to_one_and_keep_the_order(scores: list[list[float]], temperature: float) -> None:
    probs = choice_probs(scores, temperature)
    np.testing.assert_allclose(probs.sum(1), 1)
    for row, prob in zip(np.array(scores), probs, strict=True):
        assert prob[row.argmax()] == prob.max()
    np.testing.assert_array_equal(speech_probs(scores, temperature), probs[:, 0])


def test_a_model_that_gives_no_numbers_gives_no_answers_either() -> None:
    model, processor = builders.graft()
    with torch.no_grad():
        next(model.language_model.parameters())[:] = np.nan
    with pytest.raises(ConfigError, match="gives no finite numbers about 2 of 2 clips"):
        score_choices(model, processor, QUESTION, CLIPS[:2])


def test_temperature_divides_the_log_odds() -> None:
    [prob] = speech_probs([[np.log(0.9), np.log(0.1)]], temperature=2.0)
    assert prob == pytest.approx(3 / 4)


def test_a_threshold_decides_between_two_and_the_likeliest_among_more() -> None:
    question = ClosedQuestion("?", {"yes": "A", "no": "B"}, threshold=0.3)
    assert [question.pick([prob, 1 - prob]) for prob in (0.29, 0.3, 0.9)] == ["no", "yes", "yes"]
    assert AT_THE_END.pick([0.4, 0.35, 0.25]) == "SPEECH"
    assert AT_THE_END.pick([0.2, 0.35, 0.45]) == "both"


def test_an_answer_of_several_tokens_is_named_with_them() -> None:
    _, processor = builders.graft()
    with pytest.raises(ConfigError, match=r"'dog' of animal is 3 tokens for this model \('d', 'o', 'g'\)"):
        score_choices(None, processor, ClosedQuestion("?", {"animal": "dog", "no": "B"}), CLIPS)


def test_answers_that_share_a_token_are_refused() -> None:
    _, processor = builders.graft()
    processor.tokenizer.add_tokens([" A"])
    for answers in ({"yes": "A", "no": "A"}, {"yes": "A", "no": " A"}):
        with pytest.raises(ConfigError, match="yes and no share the token ' ?A'"):
            spellings(processor.tokenizer, answers)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"answers": {"SPEECH": "A"}}, "two answers or more, not 1"),
        ({"answers": {"": "A", "NONSPEECH": "B"}}, "the answer 'A' of the label ''"),
        ({"answers": {"SPEECH": " ", "NONSPEECH": "B"}}, "the answer ' ' of the label 'SPEECH': neither may be blank"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"temperature": float("inf")}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"threshold": 1.5}, "threshold must be between 0 and 1, not 1.5"),
        ({"threshold": float("nan")}, "threshold must be between 0 and 1"),
    ],
)
def test_a_question_that_makes_no_sense(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ClosedQuestion(**{"prompt": "?", "answers": QUESTION.answers, **changes})


def test_a_question_has_one_clip() -> None:
    with pytest.raises(DataError, match="2 <audio> markers"):
        ClosedQuestion("<audio> or <audio>?", QUESTION.answers)


def test_system_turn_and_clip_have_their_places() -> None:
    assert AT_THE_END.messages() == [
        {"role": "system", "content": "Listen."},
        {"role": "user", "content": [{"type": "text", "text": "Which one?\n"}, {"type": "audio"}]},
    ]
    assert [turn["role"] for turn in ClosedQuestion("?", QUESTION.answers).messages()] == ["user"]


def test_detection_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    question = ClosedQuestion("Wörter?", {"B": "b", "A": "a"}, None, 1.3, 0.4, {"manifest": "dev.jsonl", "sha256": "00", "clips": 7})
    assert question.write(tmp_path) == tmp_path / "detection.json"
    assert ClosedQuestion.read(tmp_path) == question
    assert ClosedQuestion.read(tmp_path).labels == ("B", "A")
    assert find_question(tmp_path) == question


def test_a_model_without_a_question_of_its_own() -> None:
    assert find_question("tiny") is None
    assert question_for("tiny") is DEFAULT_QUESTION


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "is a JSON list, not an object"),
        ('{"answers": {"A": "a", "B": "b"}}', "has no prompt"),
        ('{"prompt": "?"}', "has no answers"),
        ('{"prompt": "?", "answers": {"A": "a", "B": "b"}, "treshold": 1}', "unknown key treshold"),
        ('{"prompt": 3, "answers": {"A": "a", "B": "b"}}', "prompt must be a text, not 3"),
        ('{"prompt": "?", "answers": ["A", "B"]}', "answers must be an object"),
        ('{"prompt": "?", "answers": {"A": "a", "B": ""}}', 'the answer of B must be a text, not ""'),
        ('{"prompt": "?", "answers": {"A": "a"}}', "two answers or more, not 1"),
        ('{"prompt": "?", "answers": {"A": "a", "B": "b"}, "temperature": true}', "temperature must be a number, not true"),
        ('{"prompt": "?", "answers": {"A": "a", "B": "b"}, "threshold": 7}', "threshold must be between 0 and 1, not 7"),
        ('{"prompt": "<audio><audio>", "answers": {"A": "a", "B": "b"}}', "2 <audio> markers"),
    ],
)
def test_a_broken_detection_json_is_one_line(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "detection.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem) as caught:
        ClosedQuestion.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'detection.json'}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_detection_json_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"detection\.json: can't be read"):
        ClosedQuestion.read(tmp_path)


def test_choices_become_letters_unless_each_is_a_token() -> None:
    _, processor = builders.graft()
    letters = choice_question(["dog", "car", "rain"], processor.tokenizer)
    assert letters.answers == {"dog": "A", "car": "B", "rain": "C"}
    assert "A) dog\nB) car\nC) rain" in letters.prompt
    words = choice_question(["x", "y"], processor.tokenizer, "What is it?")
    assert words.answers == {"x": "x", "y": "y"}
    assert words.prompt.startswith("What is it?\nx\ny\n")


@pytest.mark.parametrize(
    ("choices", "problem"),
    [(["dog", "car", "dog"], "'dog' is there twice"), ([f"sound {n}" for n in range(27)], "27 choices"), (["dog"], "two answers or more")],
)
def test_choices_that_make_no_question(choices: list[str], problem: str) -> None:
    _, processor = builders.graft()
    with pytest.raises(ConfigError, match=problem):
        choice_question(choices, processor.tokenizer)


def test_the_default_question_is_system_c_s() -> None:
    assert json.dumps(DEFAULT_QUESTION.messages()[0]) == '{"role": "system", "content": "You classify audio content."}'
    assert DEFAULT_QUESTION.answers == {"SPEECH": "A", "NONSPEECH": "B"}
    assert DEFAULT_QUESTION.about_speech
    assert not AT_THE_END.about_speech
