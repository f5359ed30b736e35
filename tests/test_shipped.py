"""The models in the package: their size, and that they hear."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

import audiograft
from audiograft.audio import load_audio
from audiograft.data.manifest import read_manifest
from audiograft.images import load_image
from audiograft.inference.choices import ClosedQuestion
from audiograft.inference.engine import Engine
from audiograft.metrics.word_errors import corpus, word_errors
from audiograft.model import load_graft, resolve_model
from audiograft.types import ConfigError

ROOT = Path(__file__).resolve().parent.parent
CLIPS = read_manifest(ROOT / "tests" / "data" / "clips" / "manifest.jsonl")
MAX_PARAMETERS = 10_000_000


@pytest.fixture(scope="module")
def tiny() -> Engine:
    return audiograft.load("tiny")


def megabytes(*names: str) -> float:
    return sum(path.stat().st_size for name in names for path in Path(resolve_model(name)).glob("*.safetensors")) / 1e6


def test_no_file_tells_of_the_machine_it_was_made_on() -> None:
    texts = [path for path in Path(resolve_model("tiny")).parent.rglob("*") if path.suffix in (".json", ".jinja")]
    assert len(texts) > 10
    for path in texts:
        assert not re.search(r'"/(?:tmp|home|root|work|Users|opt|var)/', path.read_text(encoding="utf-8")), path


def test_sizes_are_as_promised(tiny: Engine) -> None:
    assert sum(p.numel() for p in tiny.model.parameters()) <= MAX_PARAMETERS
    assert megabytes("tiny") <= 20
    assert megabytes("tiny-encoder", "tiny-lm") <= 14


def test_layouts_are_those_that_other_engines_read(tiny: Engine) -> None:
    assert tiny.model.config.audio_config.model_type == "whisper"
    assert tiny.model.config.text_config.model_type == "qwen2"
    assert tiny.model.config.projector_type == "swiglu"
    assert type(tiny.processor.tokenizer).__name__ == "Qwen2Tokenizer"
    assert tiny.processor.end_of_turn == "<|im_end|>"


def wer(engine: Engine, waveforms: list[np.ndarray], batch_size: int = 10) -> float:
    texts = engine.transcribe_waveforms(waveforms, [clip.prompt for clip in CLIPS], batch_size=batch_size)
    return corpus(word_errors(str(clip.text), text) for clip, text in zip(CLIPS, texts, strict=True)).rate


def test_it_hears_and_does_not_guess(tiny: Engine) -> None:
    waveforms = [load_audio(clip.audio).waveform for clip in CLIPS]
    assert wer(tiny, waveforms) <= 0.1
    assert wer(tiny, waveforms[1:] + waveforms[:1]) >= 0.8


def test_it_hears_clips_padded_to_30_s_too() -> None:
    engine = audiograft.load("tiny")
    engine.processor.pad_to_window = True
    assert wer(engine, [load_audio(clip.audio).waveform for clip in CLIPS], batch_size=4) <= 0.15


def test_batches_equal_single_runs_on_real_clips(tiny: Engine) -> None:
    sources = [clip.audio for clip in CLIPS[:8]]
    together = tiny.transcribe(list(sources), batch_size=8)
    assert [t.text for t in together] == [tiny.transcribe(source).text for source in sources]


def test_it_says_what_it_is(tiny: Engine) -> None:
    assert tiny.note is not None
    assert "not a speech recogniser" in tiny.note


def test_a_copy_with_a_tensor_missing_is_refused(tmp_path: Path) -> None:
    shutil.copytree(resolve_model("tiny"), tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["projector.ln_mid.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks tensor projector\.ln_mid\.weight"):
        load_graft(tmp_path / "broken")


def test_weights_are_stored_in_half_precision_and_used_in_full(tiny: Engine) -> None:
    stored = load_file(Path(resolve_model("tiny")) / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert {parameter.dtype for parameter in tiny.model.parameters()} == {torch.float32}


DETECTIONS = read_manifest(ROOT / "tests" / "data" / "detections" / "manifest.jsonl")


def test_the_detector_is_a_small_adapter_with_a_fitted_question() -> None:
    folder = Path(resolve_model("tiny-detect"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 5e6
    question = ClosedQuestion.read(folder)
    assert question.labels == ("SPEECH", "NONSPEECH")
    assert question.chosen_on is not None
    assert question.note


def test_the_detector_tells_speech_from_sounds_of_kinds_it_never_met() -> None:
    detector = audiograft.load("tiny-detect")
    found = detector.detect([clip.audio for clip in DETECTIONS])
    assert np.mean([one.predicted == clip.label for one, clip in zip(found, DETECTIONS, strict=True)]) >= 0.9
    # With the sound of the next clip, which is of the other class, it should be wrong as often.
    assert [clip.label for clip in DETECTIONS] == ["SPEECH", "NONSPEECH"] * (len(DETECTIONS) // 2)
    assert np.mean([one.predicted == clip.label for one, clip in zip(found[1:] + found[:1], DETECTIONS, strict=True)]) <= 0.1


SCENES = sorted((ROOT / "examples" / "scenes").glob("*.png"))


@pytest.fixture(scope="module")
def seeing() -> Engine:
    return audiograft.load("tiny-vl")


def test_the_model_with_eyes_is_as_small_as_promised(seeing: Engine) -> None:
    assert sum(p.numel() for p in seeing.model.parameters()) <= MAX_PARAMETERS
    files = [path for name in ("tiny-vl", "tiny-vl-lm", "tiny-encoder") for path in Path(resolve_model(name)).rglob("*.safetensors")]
    assert sum(path.stat().st_size for path in files) <= 20e6
    assert seeing.model.config.text_config.model_type == "qwen2_vl"
    assert seeing.model.lora_gate is not None


def test_spoken_questions_are_answered_by_the_picture(seeing: Engine) -> None:
    assert len(SCENES) == 3
    for scene in SCENES:
        wanted = scene.with_suffix(".txt").read_text(encoding="utf-8").strip()
        answers = {picture: seeing.ask(scene.with_suffix(".wav"), images=[picture]).text for picture in SCENES}
        assert answers.pop(scene) == wanted
        assert any(answer != wanted for answer in answers.values())


def test_the_model_with_eyes_hears_what_tiny_hears(seeing: Engine) -> None:
    waveforms = [load_audio(clip.audio).waveform for clip in CLIPS]
    assert wer(seeing, waveforms) <= 0.1
    assert wer(seeing, waveforms[1:] + waveforms[:1]) >= 0.8


def test_what_it_saw_before_it_heard_it_sees_bit_for_bit(seeing: Engine) -> None:
    base = AutoModelForImageTextToText.from_pretrained(resolve_model("tiny-vl-lm"), dtype=torch.float32).eval()
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nwhere is the red circle"}]}]
    batch = seeing.processor.collate([seeing.processor.prompt_inputs(messages, [], [load_image(SCENES[0])])], [])
    with torch.no_grad():
        assert torch.equal(seeing.model(**batch).logits, base(**batch).logits)
