from __future__ import annotations

import json
from pathlib import Path

import builders
import numpy as np
import pytest
import soundfile

from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.rows import Row, index_rows, load_clips, read_samples
from audiograft.types import DataError, Rejection


@pytest.fixture
def indexed(graft, tmp_path: Path):
    def index(waveforms: list[np.ndarray], texts: list[str] | None = None, **options: float) -> tuple[list[Row], list[Rejection]]:
        manifest = builders.write_clips(tmp_path / "made", waveforms, texts or ["hello"] * len(waveforms))
        return index_rows(read_samples([str(manifest)], None), graft[1], **options)

    return index


def test_bad_rows_are_dropped_by_name_and_the_others_stay(graft, tmp_path: Path) -> None:
    good = builders.tone(0.3)
    nan = good.copy()
    nan[100] = np.nan
    waveforms = [good, nan, np.zeros(3000, np.float32), builders.tone(30.1), builders.tone(30.0), np.zeros(0, np.float32), good]
    manifest = builders.write_clips(tmp_path, waveforms, ["a"] * len(waveforms))
    (tmp_path / "text.wav").write_text("this is text", encoding="utf-8")
    whole = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    with manifest.open("a", encoding="utf-8") as file:
        for name in ("missing", "text", "cut"):
            file.write(f'{{"audio": "{name}.wav", "text": "a"}}\n')
        file.write('{"id": "mute", "audio": "0.wav"}\n')
        file.write('{"id": "empty text", "audio": "2.wav", "text": ""}\n')
    rows, rejected = index_rows(read_samples([str(manifest)], None), graft[1])
    assert [row.sample.id for row in rows] == ["clip-0", "clip-4", "clip-6", "empty text"]
    reasons = {item.id: item.reason for item in rejected}
    assert set(reasons) == {"clip-1", "clip-2", "clip-3", "clip-5", "missing.wav", "text.wav", "cut.wav", "mute"}
    assert "silence with a transcript" in reasons["clip-2"]
    assert "30.1 s is longer than 30 s" in reasons["clip-3"]
    assert "no text or response" in reasons["mute"]


@pytest.mark.parametrize("pad_share", [0.0, 1.0])
def test_lengths_of_index_collator_and_model_agree(graft, indexed, pad_share: float) -> None:
    model, processor = graft
    waveforms = [builders.tone(1.0)[:n] for n in (1, 159, 160, 161, 639, 640, 641, 1280, 1281, 5119, 5121, 16_000)]
    rows, rejected = indexed(waveforms, pad_share=pad_share)
    assert not rejected
    dataset = SpeechDataset(rows, processor)
    for index, row in enumerate(rows):
        batch = Collator(processor)([dataset[index]])
        assert batch["input_ids"].shape[1] == row.positions
        assert batch["feature_lengths"].tolist() == list(row.feature_frames) == [batch["input_features"].shape[2]]
        placeholders = int((batch["input_ids"] == processor.audio_token_id).sum())
        states = model.encode_audio(batch["input_features"], batch["feature_lengths"])
        assert len(model.project_audio(states, batch["feature_lengths"])) == placeholders


def test_clips_of_another_rate_are_measured_as_they_will_be_decoded(graft, tmp_path: Path) -> None:
    manifest = builders.write_clips(tmp_path, [builders.tone(0.3)], ["a"])
    soundfile.write(tmp_path / "0.wav", np.stack([builders.tone(0.3)] * 2, 1)[:3333], 22_050)
    (row,), _ = index_rows(read_samples([str(manifest)], None), graft[1])
    assert row.n_samples == tuple(map(len, load_clips(row)))


def test_padding_is_drawn_once_per_row(indexed) -> None:
    waveforms = [builders.tone(0.1)] * 60
    padded = [[row.padded for row in indexed(waveforms, pad_share=0.3, seed=seed)[0]] for seed in (0, 0, 1)]
    assert padded[0] == padded[1] != padded[2]
    assert 6 <= sum(padded[0]) <= 32


def test_a_clip_that_changes_during_the_run_is_named(indexed) -> None:
    (row,), _ = indexed([builders.tone(0.3)])
    path = Path(row.sample.audio)
    soundfile.write(path, builders.tone(0.4), 16_000)
    with pytest.raises(DataError, match="clip-0: .* changed during the run"):
        load_clips(row)
    path.unlink()
    with pytest.raises(DataError, match="clip-0: the clip was readable when the run began"):
        load_clips(row)


@pytest.mark.parametrize("key", ["text", "prompt", "response"])
def test_a_row_that_holds_the_audio_token_is_rejected_by_name(graft, tmp_path: Path, key: str) -> None:
    manifest = builders.write_clips(tmp_path, [builders.tone(0.3)], ["one"])
    row = {"id": "odd", "audio": "0.wav", "text": "one", "response": "two", key: "one <|audio|> two"}
    with manifest.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    rows, rejected = index_rows(read_samples([str(manifest)], None), graft[1])
    assert [row.sample.id for row in rows] == ["clip-0"]
    assert [(item.id, item.reason) for item in rejected] == [("odd", f"the {key} contains <|audio|>, which stands for a clip: take it out")]


def test_the_recipes_prompt_replaces_that_of_the_rows(clips: Path) -> None:
    assert {sample.prompt for sample in read_samples([str(clips)], "What do you hear?")} == {"What do you hear?"}
