"""An index gives the rows that reading all of them would, decodes and tokenises once, and notices what changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile

from audiograft.data.tracing import traces_of
from audiograft.train import index as index_module
from audiograft.train import rows as rows_module
from audiograft.train.index import ManifestFile, RowIndex, Rules, build_index
from audiograft.train.kept_index import index_key, load_index, save_index, unchanged
from audiograft.train.recipe import DataRecipe
from audiograft.train.rows import Row, Wording, index_rows, read_samples
from audiograft.types import DataError, Rejection


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Rows with one clip, with several, with none, with a conversation; some lines blank, one with a line separator inside."""
    path = builders.write_clips(
        tmp_path, [builders.tone(0.2 + 0.05 * number, 200 + 50 * number) for number in range(4)], ["one", "two", "three", "é\u2028"]
    )
    rows: list[dict[str, Any]] = [
        {"id": "pair", "audio": ["0.wav", "1.wav"], "prompt": "same?", "response": "no"},
        {"id": "text", "prompt": "hello", "response": "hello"},
        {"id": "talk", "audio": "2.wav", "messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "three"}]},
        {"audio_paths": "3.wav", "text": "hear <audio>", "response": "four"},
    ]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n\n" + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture
def rules(graft) -> Rules:
    return Rules(graft[1], Wording(prompts=("say it", "write it"), seed=3), pad_share=0.3, seed=3, useless=lambda row: None)


def indexed(manifest: Path, rules: Rules, **options: Any) -> tuple[RowIndex, int, Rejection | None]:
    return build_index([ManifestFile.open(manifest)], rules, **{"rejected": None, "max_rejected": 1.0, **options})


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "load_audio", lambda path: pytest.fail(f"{path} was decoded"))


def test_an_index_gives_the_rows_that_a_list_would_hold(graft, manifest: Path, rules: Rules, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("say it\nwrite it\n", encoding="utf-8")
    expected, _ = index_rows(read_samples([str(manifest)], prompts=str(prompts), seed=3), graft[1], pad_share=0.3, seed=3)
    index, n_rejected, _ = indexed(manifest, rules)
    assert list(index) == expected
    assert n_rejected == 0
    assert index.positions.tolist() == [row.positions for row in expected]
    assert index.n_clips.tolist() == [len(row.n_samples) for row in expected]
    assert list(index[2:6:2]) == [expected[2], expected[4]]
    assert list(index.take(np.array([3, 3, 0]))) == [expected[3], expected[3], expected[0]]
    # The same rows as one array of objects.
    array = tmp_path / "array.json"
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").split("\n") if line]
    array.write_text(json.dumps(lines, indent=1, ensure_ascii=False), encoding="utf-8")
    of_array = [row.sample for row in indexed(array, rules)[0]]
    assert of_array[:-1] == [row.sample for row in expected][:-1]
    # Without an id of its own, a row of another system is named by its clip and line.
    assert (of_array[-1].clips, of_array[-1].prompt) == (expected[-1].sample.clips, expected[-1].sample.prompt)


def test_a_row_costs_a_few_bytes(manifest: Path, rules: Rules) -> None:
    index, *_ = indexed(manifest, rules)
    assert index.rows.itemsize + index.clips.itemsize <= 50


def test_rows_that_do_not_fit_are_named_and_cost_nothing_else(graft, rules: Rules, tmp_path: Path) -> None:
    manifest = builders.write_clips(tmp_path / "corpus", [builders.tone(0.3)] * 3, ["one"] * 3)
    soundfile.write(tmp_path / "beside.wav", builders.tone(0.3), 16_000)
    bad: list[bytes] = [
        b"{broken", b'{"id": "latin", "audio": "0.wav", "text": "caf\xe9"}', b'{"id": "null", "audio": "0.wav", "text": null}', b"[1]",
        b'{"id": "binary", "audio": "0.wav", "text": "\\u0001\\u0002"}', b'{"id": "clip-1", "audio": "1.wav", "text": "again"}',
        b'{"id": "out", "audio": "../beside.wav", "text": "a"}', b'{"id": "gone", "audio": "none.wav", "text": "a"}',
        b'{"id": "short", "audio": "0.wav", "text": "a", "duration_s": 0.9}',
    ]  # fmt: skip
    with manifest.open("ab") as file:
        file.write(b"\n".join(bad) + b'\n{"id": "last", "audio": "2.wav", "text": "two", "duration_s": 0.31}\n')
    rejected = tmp_path / "rejected.jsonl"
    index, n_rejected, first = indexed(manifest, rules, rejected=rejected)
    assert [row.sample.id for row in index] == ["clip-0", "clip-1", "clip-2", "last"]
    named = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
    assert [row["kind"] for row in named] == ["row", "text", "text", "row", "text", "duplicate", "outside", "missing", "short"]
    assert [row["id"] for row in named[:2]] == [f"{manifest}:4", f"{manifest}:5"]
    assert n_rejected == len(named) == 9
    assert first is not None
    assert first.reason.startswith(f"{manifest}:4: not valid JSON")
    assert "data.allow_outside" in named[6]["reason"]
    assert "lasts 0.30 s where 0.90 s are declared" in named[8]["reason"]
    outside, *_ = build_index([ManifestFile.open(manifest, allow_outside=True)], rules, None, 1.0)
    assert "out" in [row.sample.id for row in outside]
    with pytest.raises(
        DataError, match=r"9 of 13 rows can't be used, more than data\.max_rejected 0\.5 allows: .*the first: .*:4: .* all are in "
    ) as caught:
        indexed(manifest, rules, rejected=rejected, max_rejected=0.5)
    assert "\n" not in str(caught.value)


def test_clips_with_traces_are_not_decoded_and_give_the_same_index(manifest: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, *_ = indexed(manifest, rules)
    assert len(list(traces_of(manifest))) == len(decoded)
    no_decoding(monkeypatch)
    traced, *_ = indexed(manifest, rules)
    assert list(traced) == list(decoded)
    assert traced.fingerprint() == decoded.fingerprint()


def test_traces_are_not_believed_of_clips_that_changed_since(manifest: Path, rules: Rules) -> None:
    before, *_ = indexed(manifest, rules)
    list(traces_of(manifest))
    soundfile.write(manifest.parent / "1.wav", builders.tone(0.7), 16_000, subtype="FLOAT")
    (manifest.parent / "2.wav").unlink()
    after, n_rejected, first = indexed(manifest, rules)
    assert n_rejected == 2  # clip-2 and the conversation about it
    assert first is not None
    assert first.kind == "missing"
    lengths = {row.sample.id: row.n_samples for row in after}
    assert lengths["clip-1"] == (11_200,)
    assert lengths["clip-0"] == before[0].n_samples
    # Rows that are not in the traces, because they are new, are decoded.
    with manifest.open("a", encoding="utf-8") as file:
        file.write('{"id": "new", "audio": "0.wav", "text": "new"}\n')
    assert [row.sample.id for row in indexed(manifest, rules)[0]][-1] == "new"


def test_silence_with_a_transcript_is_seen_in_traces(rules: Rules, tmp_path: Path) -> None:
    manifest = builders.write_clips(tmp_path, [builders.tone(0.3), np.zeros(4000, np.float32)], ["one", "two"])
    list(traces_of(manifest))
    _, n_rejected, first = indexed(manifest, rules)
    assert first is not None
    assert (n_rejected, first.id, first.kind) == (1, "clip-1", "silence")


def test_a_kept_index_neither_decodes_nor_tokenises(manifest: Path, rules: Rules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, *_ = indexed(manifest, rules)
    key = index_key(index.manifests, [1])
    save_index(tmp_path / "rows.npz", index, key, 5)
    monkeypatch.setattr(index_module, "check_row", lambda *args: pytest.fail("a row was looked at again"))
    stored = load_index(tmp_path / "rows.npz", key, index.manifests, rules.wording)
    assert stored is not None
    again = unchanged(stored[0], rules, keep_lost=False)
    assert again is not None
    assert list(again) == list(index)
    assert stored[1] == 5
    assert load_index(tmp_path / "rows.npz", index_key(index.manifests, [2]), index.manifests, rules.wording) is None
    assert load_index(tmp_path / "none.npz", key, index.manifests, rules.wording) is None
    (tmp_path / "rows.npz").write_bytes(b"half a file")
    assert load_index(tmp_path / "rows.npz", key, index.manifests, rules.wording) is None
    with manifest.open("a", encoding="utf-8") as file:
        file.write("\n")
    assert index_key([ManifestFile.open(manifest)], [1]) != key


def test_clips_that_changed_are_looked_at_again(manifest: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    index, *_ = indexed(manifest, rules)
    looked_at: list[str] = []
    check = index_module.check_row

    def counted(sample: Any, *args: Any) -> Row | Rejection:
        looked_at.append(sample.id)
        return check(sample, *args)

    monkeypatch.setattr(index_module, "check_row", counted)
    clip = manifest.parent / "1.wav"
    # Another time, the same sound: as after a copy.
    os.utime(clip, (1, 1))
    touched = unchanged(index, rules, keep_lost=False)
    assert touched is not None
    assert looked_at == ["clip-1", "pair"]
    assert touched.fingerprint() == index.fingerprint()
    assert unchanged(touched, rules, keep_lost=False) is touched
    # A clip that is gone keeps its row where a run goes on, so that the others keep their order, and nowhere else.
    content = clip.read_bytes()
    clip.unlink()
    kept = unchanged(touched, rules, keep_lost=True)
    assert kept is not None
    assert kept.fingerprint() == index.fingerprint()
    assert unchanged(touched, rules, keep_lost=False) is None
    clip.write_bytes(content)
    assert unchanged(kept, rules, keep_lost=True) is not None
    # One sample is different.
    waveform, rate_hz = soundfile.read(clip, dtype="float32")
    waveform[100] += 0.01
    soundfile.write(clip, waveform, rate_hz, subtype="FLOAT")
    assert unchanged(touched, rules, keep_lost=True) is None


def test_a_manifest_that_changes_during_the_run_is_named(manifest: Path, rules: Rules) -> None:
    index, *_ = indexed(manifest, rules)
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("clip-0", "clip-00"), encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.jsonl: has changed since the run began: start it again"):
        index[0]
    manifest.unlink()
    with pytest.raises(DataError, match=r"manifest\.jsonl: has changed since the run began: start it again"):
        index[0]


def test_a_run_that_is_resumed_finds_its_rows_again(recipe, run_quietly: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the whole of `train`: neither the rows nor the leakage gate decode or tokenise anything before the first batch."""
    manifest = builders.write_clips(
        tmp_path / "corpus", [builders.tone(0.4, 300 + 40 * n) for n in range(9)] + [np.zeros(4000, np.float32)], ["one"] * 10
    )
    recipe = replace(recipe, data=DataRecipe((str(manifest),), validation=str(manifest)))

    def stop(line: dict[str, float]) -> None:
        if line["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop)
    before = (Path(recipe.output_dir) / "rejected.jsonl").read_bytes()
    # Also from another copy of the traces' folder, of which there are none.
    (manifest.parent / "manifest.traces").unlink()
    monkeypatch.setattr(index_module, "check_row", lambda *args: pytest.fail("a row was looked at again"))
    monkeypatch.setattr("audiograft.train.sources.check_training", lambda *args, **options: pytest.fail("the gate ran again"))
    result = run_quietly(recipe)
    assert result["rows"] == {"train": 9, "validation": 9, "rejected": 2, "lost": 0}
    assert (Path(recipe.output_dir) / "rejected.jsonl").read_bytes() == before
    assert set(result["leakage"]) == {"allowed", "validation", "held_out"}
