"""The synthetic corpus: its grammar, its splits, its voices, its bytes."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.synthetic import voices
from audiograft.data.synthetic.generate import prepare_synthetic
from audiograft.data.synthetic.grammar import PATTERNS, number_words, sentences, split_of, vocabulary
from audiograft.types import AudiograftError, DataError


def test_the_grammar_is_as_large_as_promised() -> None:
    assert len(vocabulary()) >= 300
    assert len(PATTERNS) >= 10


def test_every_sentence_uses_words_of_the_vocabulary_alone() -> None:
    words = vocabulary()
    for sentence in islice(sentences("train", 0), 3000):
        assert set(sentence.text.split()) <= words
        assert all(value in sentence.text for _, value in sentence.slots)


@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000))
def test_no_sentence_is_in_two_splits_whatever_the_seeds(seed: int, other: int) -> None:
    drawn = {split: {s.text for s in islice(sentences(split, seed + i * other), 30)} for i, split in enumerate(("train", "dev", "test"))}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["dev"]
    assert not drawn["dev"] & drawn["test"]
    assert all(split_of(text) == split for split, texts in drawn.items() for text in texts)


def test_another_seed_gives_other_sentences_of_the_split() -> None:
    one, other = ([s.text for s in islice(sentences("test", seed), 200)] for seed in (1, 2))
    assert len(set(one)) == 200
    assert len(set(one) & set(other)) < 20


@pytest.mark.parametrize(("value", "words"), [(7, "seven"), (13, "thirteen"), (40, "forty"), (99, "ninety nine"), (305, "three hundred five")])
def test_number_words(value: int, words: str) -> None:
    assert number_words(value) == words


def test_held_out_voices_are_equal_quarters_and_never_in_training() -> None:
    rng = random.Random(0)
    held_out = [voices.draw_voice("held-out", row, rng) for row in range(400)]
    assert {voice: held_out.count(voice) for voice in voices.HELD_OUT} == dict.fromkeys(voices.HELD_OUT, 100)
    training = {voices.draw_voice("training", row, rng).name for row in range(20_000)}
    assert len(training) > 400
    assert not [name for name in training if "f5" in name or "m8" in name or "gbclan" in name or name == "slt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train", "voices": "held-out"}, "held-out voices are for the test split"),
        ({"split": "eval", "voices": "training"}, "unknown split or voices 'eval'"),
        ({"split": "test", "voices": "all"}, "'all'"),
        ({"split": "test", "voices": "training", "rows": 0}, "rows must be 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_synthetic(tmp_path, **{"rows": 2, "seed": 0, **options})  # type: ignore[arg-type]


def test_without_an_engine_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices.shutil, "which", lambda name: None)
    voices._binary.cache_clear()
    with pytest.raises(AudiograftError, match="apt-get install espeak-ng flite") as error:
        prepare_synthetic(tmp_path, split="test", voices="training", rows=1, seed=0)
    assert "\n" not in str(error.value)
    voices._binary.cache_clear()


@pytest.mark.needs_engines
@pytest.mark.parametrize("augmented", [False, True])
def test_same_seed_same_bytes_on_any_number_of_workers(tmp_path: Path, augmented: bool) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        prepare_synthetic(tmp_path / name, split="dev", voices="training", rows=8, seed=3, augmented=augmented, workers=workers)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 9
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.needs_engines
def test_the_manifest_describes_its_clips(tmp_path: Path) -> None:
    manifest = prepare_synthetic(tmp_path, split="test", voices="held-out", rows=8, seed=0)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 8
    assert [row["speaker"] for row in rows[:4]] == [voice.speaker for voice in voices.HELD_OUT]
    for row in rows:
        info = soundfile.info(tmp_path / row["audio"])
        assert (info.samplerate, info.channels) == (16_000, 1)
        assert row["duration_s"] == pytest.approx(info.frames / 16_000, abs=1e-4)
        waveform, _ = soundfile.read(tmp_path / row["audio"])
        assert 1 < info.duration < 12
        assert np.sqrt(np.mean(waveform**2)) > 0.005
