"""What `prepare` makes of rows of every kind, of splits, and of the sources of recipes."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from listed import Listed, contents, lines, options, write_clip

from audiograft.audio import load_audio
from audiograft.data import clips, prepare, sources
from audiograft.data.filters import Filters
from audiograft.data.ledger import manifest_row, to_line
from audiograft.data.manifest import read_manifest
from audiograft.data.options import PrepareOptions
from audiograft.data.prepare import TooManyRejectedError, prepare_source
from audiograft.data.sources.base import SourceRow
from audiograft.data.traces import make_trace, read_traces
from audiograft.types import ConfigError, DataError, Rejection, Sample


def test_each_row_becomes_one_line_of_the_manifest_or_the_rejected(mixed: Listed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = prepare.prepare(mixed, options(out))
    assert (summary.rows, summary.kept) == (14, 9)
    assert summary.rejected == {"text": 2, "missing": 1, "row": 1, "duplicate": 1}
    rejected = lines(out / "rejected.jsonl")
    assert [(row["id"], row["kind"], row["row"]) for row in rejected] == [
        ("gone", "missing", 4), ("line-6", "row", 6), ("good-1", "duplicate", 8), ("null", "text", 12), ("binary", "text", 13),
    ]  # fmt: skip
    assert rejected[2]["audio"] == mixed.found[7].sample.audio  # its own clip: that of the corpus is not there
    assert [row.get("text") for row in rejected] == ["gone", None, "same id as another", None, "a\0b"]
    assert summary.card["rows"] == {"read": 14, "kept": 9, "rejected": 5}
    samples = read_manifest(out)
    assert [sample.id for sample in samples] == ["good-0", "good-1", "good-2", "bytes", "good-3", "span", "good-4", "good-5", "good-7"]
    for sample in samples:
        assert len(load_audio(sample.audio).waveform) == sample.duration_s * 16_000
    assert summary.duration_s == pytest.approx(sum(sample.duration_s or 0 for sample in samples))
    # No clip lies there that no row names, and none of the files has a name of what isn't whole.
    assert {Path(sample.audio) for sample in samples} == {path for path in (out / "audio").rglob("*") if path.is_file()}
    assert not list(out.rglob("*.part"))


def test_augmented_clips_say_what_was_done_to_them(mixed: Listed, tmp_path: Path) -> None:
    settings = tmp_path / "augment.yaml"
    settings.write_text("speed: [0.8, 1.25]\nnoise: [pink]\nnoise_share: 1\nsnr_db: [4, 8]\n", encoding="utf-8")
    outs = tmp_path / "out", tmp_path / "again"
    for out in outs:
        prepare.prepare(mixed, options(out, augment=settings, workers=1 if out == outs[0] else 2))
    rows = lines(outs[0] / "manifest.jsonl")
    assert rows == lines(outs[1] / "manifest.jsonl")
    assert len(rows) == 9
    for row, trace in zip(rows, read_traces(outs[0] / "manifest.traces"), strict=True):
        assert row["audio"].endswith(".flac")
        assert row["augmentation"]["speed"] in (0.8, 1.25)
        assert 4 <= row["augmentation"]["snr_db"] <= 8
        waveform = load_audio(outs[0] / row["audio"]).waveform
        assert len(waveform) == round(row["duration_s"] * 16_000)
        assert trace.clips[0].digest == make_trace(Sample("x", ("x",)), [waveform]).clips[0].digest
    assert contents(outs[0] / "audio") == contents(outs[1] / "audio")
    settings.write_text("gain_db: [-6, 0]", encoding="utf-8")
    with pytest.raises(DataError, match="augment"):
        prepare.prepare(mixed, options(outs[0], augment=settings))
    settings.write_text("time_masks: 1", encoding="utf-8")
    with pytest.raises(ConfigError, match="time_masks and frequency_masks hide features"):
        prepare.prepare(mixed, options(tmp_path / "third", augment=settings))
    assert not (tmp_path / "third").exists()


def test_traces_are_those_of_the_clips_that_the_manifest_names(mixed: Listed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare.prepare(mixed, options(out))
    for sample, trace in zip(read_manifest(out), read_traces(out / "manifest.traces"), strict=True):
        expected = make_trace(sample, [load_audio(clip).waveform for clip in sample.clips])
        assert (trace.id, trace.text, [clip.digest for clip in trace.clips]) == (sample.id, expected.text, [clip.digest for clip in expected.clips])


@pytest.mark.parametrize(
    ("make", "kind", "named"),
    [
        (lambda clip: Sample("a", (str(clip) + "x",), text="t"), "missing", "no such file"),
        (lambda clip: Sample("a", (str(clip.parent),), text="t"), "unreadable", "is a folder"),
        (lambda clip: Sample("a", (str(clip.with_name("text.wav")),), text="t"), "unreadable", "not audio"),
        (lambda clip: Sample("a", (str(clip.with_name("zero.wav")),), text="t"), "empty", "is empty"),
        (lambda clip: Sample("a", (str(clip.with_name("none.wav")),), text="t"), "empty", "holds no samples"),
        (lambda clip: Sample("a", (str(clip),), text="t", duration_s=0.31), "short", "0.20 s where 0.31 s"),
        (lambda clip: Sample("a", (str(clip),)), "text", "neither text"),
        (lambda clip: Sample("a", (str(clip),), text="caf\ufffd"), "text", "not UTF-8"),
        (lambda clip: Sample("a", (str(clip),), response="caf\udce9"), "text", "the response was not UTF-8"),
        (lambda clip: Sample("a", (str(clip),), text="cafÃ©"), "text", "Latin-1"),
        (lambda clip: Sample("a", (str(clip),), text="itâ€™s"), "text", "Latin-1"),
        (lambda clip: Sample("a", (str(clip),), text="a\x1bb"), "text", "U+001B"),
        (lambda clip: Sample("a", (str(clip),), text="t", prompt="<audio> or <audio>?"), "row", "2 <audio> markers"),
        (lambda clip: Sample("", (str(clip),), text="t"), "row", "no id"),
        (lambda clip: Sample("a", text="t"), "row", "no audio"),
        (lambda clip: Sample("a", (str(clip.with_name("silent.wav")),), text="t"), "silence", "nothing was recorded"),
        (lambda clip: SourceRow(Sample("a", (str(clip),), text="t"), span=(0.1, 0.35)), "short", "0.20 s where 0.35 s"),
        (lambda clip: SourceRow(Sample("a", (str(clip),), text="t"), span=(0.2, 0.2)), "empty", "from 0.2 s to 0.2 s"),
        (lambda clip: SourceRow(Sample("a", ("cell 7",), text="t"), audio=b"RIFF"), "unreadable", "cell 7"),
    ],
)  # fmt: skip
def test_bad_input_is_rejected_by_kind_and_nothing_else_is_lost(
    make: Callable[[Path], SourceRow], kind: str, named: str, listed: Callable[..., Listed], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.wav")
    (tmp_path / "text.wav").write_text("this is no audio at all")
    (tmp_path / "zero.wav").touch()
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(3200, np.float32), 16_000)
    source = listed(Sample("before", (str(clip),), text="one"), make(clip), Sample("behind", (str(clip),), text="two"))
    out = tmp_path / "out"
    assert prepare.prepare(source, options(out)).rejected == {kind: 1}
    [rejected] = lines(out / "rejected.jsonl")
    assert rejected["kind"] == kind
    assert named in rejected["reason"]
    assert "\n" not in rejected["reason"]
    assert [sample.id for sample in read_manifest(out)] == ["before", "behind"]


def test_a_clip_may_be_a_little_shorter_than_declared(listed: Callable[..., Listed], tmp_path: Path) -> None:
    short, long = write_clip(tmp_path / "short.wav", 16_000), write_clip(tmp_path / "long.wav", 20 * 16_000)
    source = listed(Sample("a", (str(short),), text="t", duration_s=1.09), Sample("b", (str(long),), text="t", duration_s=20.19))
    assert prepare.prepare(source, options(tmp_path / "out")).kept == 2
    # What the manifest says is what was decoded.
    assert [sample.duration_s for sample in read_manifest(tmp_path / "out")] == [1.0, 20.0]


def test_rows_come_back_with_all_that_the_source_said(listed: Callable[..., Listed], tmp_path: Path) -> None:
    one, two = str(write_clip(tmp_path / "1.wav", seed=1)), str(write_clip(tmp_path / "2.FLAC", seed=2))
    turns = ({"role": "user", "content": "And this? <audio>"}, {"role": "assistant", "content": "No."}, {"role": "user", "content": "Why?"})
    samples = [
        Sample("full", (one,), "said", "What? <audio>", (), "answer", "s", "r", "en", "SPEECH", "corpus", None, {"wer_percent": 3.5, "n": None}),
        Sample("two", (one, two), "said"),
        Sample("turns", (two,), messages=turns, response="Because."),
        Sample("words", (), prompt="How much is one and one?", response="two"),
        Sample("nothing", (one,), label="NONSPEECH"),
    ]
    prepare.prepare(listed(*samples), options(tmp_path / "out"))
    read = read_manifest(tmp_path / "out")
    assert [replace(sample, clips=(), duration_s=None) for sample in read] == [replace(sample, clips=()) for sample in samples]
    assert [Path(clip).name for sample in read for clip in sample.clips] == [
        "0000001_full.wav", "0000002_two-1.wav", "0000002_two-2.flac", "0000003_turns.flac", "0000005_nothing.wav",
    ]  # fmt: skip


def test_files_are_linked_copied_or_encoded(listed: Callable[..., Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = write_clip(tmp_path / "a.wav", rate_hz=8000)
    source = listed(Sample("a/../b c", (str(original),), text="t"))
    for chosen in ("link", "copy", "flac"):
        prepare.prepare(source, options(tmp_path / chosen, audio=chosen))
    linked, copied, encoded = (Path(read_manifest(tmp_path / chosen)[0].audio) for chosen in ("link", "copy", "flac"))
    assert linked.samefile(original)
    assert not linked.is_symlink()
    assert not copied.samefile(original)
    assert copied.read_bytes() == original.read_bytes()
    assert copied.name == "0000001_a_.._b_c.wav"
    info = soundfile.info(encoded)
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16_000, 1)

    def refuse(*paths: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    prepare.prepare(source, options(tmp_path / "elsewhere"))
    target = Path(read_manifest(tmp_path / "elsewhere")[0].audio)
    assert target.is_symlink()
    assert target.samefile(original)


def test_a_symbolic_link_is_followed_before_it_is_linked(listed: Callable[..., Listed], tmp_path: Path) -> None:
    original = write_clip(tmp_path / "deep" / "a.wav")
    (tmp_path / "link.wav").symlink_to("deep/a.wav")
    prepare.prepare(listed(Sample("a", (str(tmp_path / "link.wav"),), text="t")), options(tmp_path / "out"))
    assert Path(read_manifest(tmp_path / "out")[0].audio).samefile(original)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_sixteen_bits_survive_flac(values: list[float]) -> None:
    waveform = clips.as_16_bit(np.array(values, np.float32))
    assert np.array_equal(clips.as_16_bit(waveform), waveform)
    assert np.abs(waveform - np.array(values, np.float32)).max() <= 2.0**-15


def test_parts_of_one_file_decode_it_once(listed: Callable[..., Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_clip(tmp_path / "whole.wav", 16_000)
    decoded = []
    monkeypatch.setattr("audiograft.data.examine.load_audio", lambda clip: decoded.append(clip) or load_audio(clip))
    spans = [(n / 10, (n + 1) / 10) for n in range(10)]
    source = listed(*(SourceRow(Sample(f"{n}", (str(whole),), text="t"), span=span) for n, span in enumerate(spans)))
    prepare.prepare(source, options(tmp_path / "out", workers=1))
    assert len(decoded) == 1
    parts = [load_audio(sample.audio).waveform for sample in read_manifest(tmp_path / "out")]
    assert np.array_equal(np.concatenate(parts), load_audio(whole).waveform)


def test_skip_and_limit_count_rows_of_the_source(mixed: Listed, tmp_path: Path) -> None:
    prepare.prepare(mixed, options(tmp_path / "out", skip=2, limit=5))
    assert [sample.id for sample in read_manifest(tmp_path / "out")] == ["good-2", "bytes", "good-3"]
    assert [row["row"] for row in lines(tmp_path / "out/rejected.jsonl")] == [4, 6]
    assert Listed.read == [2, 3, 4, 5, 6]


def test_texts_take_their_case_and_rows_draw_prompts(mixed: Listed, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("What is said?\nWrite it down.\nSay it again.\n", encoding="utf-8")
    chosen = {"text_case": "upper", "prompts": tmp_path / "prompts.txt"}
    prepare.prepare(mixed, options(tmp_path / "out", **chosen))
    samples = read_manifest(tmp_path / "out")
    assert samples[0].text == "TEXT 0"
    assert {sample.prompt for sample in samples} == {"What is said?", "Write it down.", "Say it again."}
    prepare.prepare(mixed, options(tmp_path / "other", **chosen, seed=1))
    assert [sample.prompt for sample in samples] != [sample.prompt for sample in read_manifest(tmp_path / "other")]


def test_filters_and_repeated_texts_reject_in_the_order_of_the_source(mixed: Listed, tmp_path: Path) -> None:
    summary = prepare.prepare(mixed, options(tmp_path / "out", max_repeats=2, min_duration_s=0.11))
    assert [(row["id"], row["kind"]) for row in lines(tmp_path / "out/rejected.jsonl")][-5:] == [
        ("good-1", "duplicate"), ("span", "duration"), ("null", "text"), ("binary", "text"), ("good-7", "repeated"),
    ]  # fmt: skip
    assert summary.kept == 7


def speech(folder: Path, n_rows: int) -> list[Sample]:
    """Rows of six speakers and twelve recordings, of one label or the other."""
    return [
        Sample(
            f"{n}", (str(write_clip(folder / f"{n}.wav", 3200 + n, n)),), text=f"sentence number {n}", speaker=f"s{n % 6}", recording=f"r{n % 12}",
            label="ab"[n % 6 < 2],
        )
        for n in range(n_rows)
    ]  # fmt: skip


def test_splits_take_the_place_of_the_manifest_and_no_group_parts(listed: Callable[..., Listed], tmp_path: Path) -> None:
    samples = speech(tmp_path / "clips", 48)
    chosen = {"splits": ("train=0.5", "dev=0.25,test=0.25"), "seed": 3}
    out = tmp_path / "out"
    summary = prepare.prepare(listed(*samples), options(out, **chosen))
    assert summary.manifests == {name: out / f"{name}.jsonl" for name in ("train", "dev", "test")}
    assert not (out / "manifest.jsonl").exists()
    assert not (out / "manifest.traces").exists()
    parts = {name: read_manifest(path) for name, path in summary.manifests.items()}
    assert sorted(sample.id for part in parts.values() for sample in part) == sorted(sample.id for sample in samples)
    speakers = [{sample.speaker for sample in part} for part in parts.values()]
    assert all(speakers)
    assert not speakers[0] & speakers[1] | speakers[0] & speakers[2] | speakers[1] & speakers[2]
    for name, part in parts.items():
        assert [trace.id for trace in read_traces(out / f"{name}.traces")] == [sample.id for sample in part]
        assert summary.card["splits"][name]["rows"] == len(part)
    assert {pair: report["touches"] for pair, report in summary.card["leakage"].items()} == {
        "train and dev": [], "train and test": [], "dev and test": [],
    }  # fmt: skip
    other = prepare.prepare(listed(*samples), options(tmp_path / "other", **chosen | {"seed": 4}))
    assert [sample.id for sample in read_manifest(other.manifests["test"])] != [sample.id for sample in parts["test"]]


def test_the_card_says_where_splits_touch(listed: Callable[..., Listed], tmp_path: Path) -> None:
    samples = speech(tmp_path / "clips", 12)
    twins = [replace(sample, id=f"{sample.id}-twin", speaker=f"{sample.speaker}-twin", recording=f"{sample.recording}-twin") for sample in samples]
    summary = prepare.prepare(listed(*samples, *twins), options(tmp_path / "out", splits=("train=0.5,test=0.5",)))
    assert "audio" in summary.card["leakage"]["train and test"]["touches"]
    assert "texts" in summary.card["leakage"]["train and test"]["touches"]


def test_what_is_read_at_the_end_may_change_before_it(listed: Callable[..., Listed], tmp_path: Path) -> None:
    samples = [replace(sample, speaker=None, recording=None, extra={"place": f"p{n % 4}"}) for n, sample in enumerate(speech(tmp_path / "clips", 12))]
    source, out = listed(*samples), tmp_path / "out"
    with pytest.raises(DataError, match="row '0' has neither speaker nor recording.*--group-by"):
        prepare.prepare(source, options(out, splits=("train=0.5,test=0.5",)))
    with pytest.raises(DataError, match='has no "corner"'):
        prepare.prepare(source, options(out, splits=("train=0.5,test=0.5",), group_by=("place",), stratify_by="corner"))
    Listed.read.clear()
    summary = prepare.prepare(source, options(out, splits=("learn=0.5", "dev=0.25", "test=0.25"), group_by=("place",), stratify_by="label"))
    assert Listed.read == [11]  # the last row alone, to see that the source is the same
    assert sorted(path.name for path in out.glob("*.jsonl*")) == ["dev.jsonl", "learn.jsonl", "rejected.jsonl", "test.jsonl"]
    assert summary.kept == 12
    assert len({sample.extra["place"] for sample in read_manifest(out / "learn.jsonl")}) == 2
    # Replacing it removes splits that the new run doesn't have.
    prepare.prepare(source, options(out, overwrite=True))
    assert sorted(path.name for path in out.glob("*.jsonl*")) == ["manifest.jsonl", "rejected.jsonl"]


def test_a_share_of_rejected_rows_stops_the_run_and_can_be_let_through(listed: Callable[..., Listed], tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "a.wav"))
    rows = [Sample(f"{n}", (clip if n % 3 else f"{clip}{n}",), text=f"{n}" if n % 10 else None) for n in range(1, 1001)]
    source = listed(*rows)
    out = tmp_path / "out"
    with pytest.raises(TooManyRejectedError) as stopped:
        prepare.prepare(source, options(out, max_rejected=0.2))
    error = stopped.value
    assert "80 of 200 rows (40.0%)" in error.headline
    assert "--max-rejected" in error.headline
    assert [reason.split(",")[0] for reason in error.reasons] == ["66 missing", "14 text"]
    assert "a.wav3: no such file" in error.reasons[0]
    assert "--skip-missing" in error.reasons[0]
    assert "--no-drop-empty" in error.reasons[1]
    assert "\n" not in str(error)
    assert len(Listed.read) < 300
    assert len(lines(out / "rejected.jsonl.part")) == 80
    # Rows whose file is missing may be left out of the share; the others are still too many for 5 %.
    with pytest.raises(TooManyRejectedError, match="rows .* are rejected"):
        prepare.prepare(source, options(out, max_rejected=0.06, skip_missing=True))
    summary = prepare.prepare(source, options(out, max_rejected=0.1, skip_missing=True))
    assert (summary.rows, summary.rejected) == (1000, {"missing": 333, "text": 67})


def test_few_rows_are_held_against_the_share_at_the_end(listed: Callable[..., Listed], tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "a.wav"))
    rows = [Sample(f"{n}", (clip,), text="t") for n in range(4)]
    assert prepare.prepare(listed(*rows, Rejection("x", "x", "why", "row")), options(tmp_path / "four", max_rejected=0.2)).kept == 4
    with pytest.raises(TooManyRejectedError, match="1 of 4 rows"):
        prepare.prepare(listed(*rows[:3], Rejection("x", "x", "why", "row")), options(tmp_path / "three", max_rejected=0.2))


def test_rows_that_a_worker_swallows_are_missed(mixed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "spread", lambda make, rows, **how: (make()(row) for row in rows if row[0] != 3))
    with pytest.raises(DataError, match="14 rows were read and 13 written down"):
        prepare.prepare(mixed, options(tmp_path / "out"))


def test_a_source_without_rows_is_refused(listed: Callable[..., Listed], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        prepare.prepare(listed(), options(tmp_path / "out"))


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"limit": 0}, "limit 0: give 1 or more"),
        ({"skip": -1}, "skip -1: give 0 or more"),
        ({"max_rejected": 1.5}, "max_rejected 1.5"),
        ({"splits": ("train=0.9",)}, "0.9"),
        ({"splits": ("train",)}, "splits train"),
        ({"splits": ("train=0.9,../x=0.1",)}, "../x=0.1"),
        ({"splits": ("manifest=0.9,test=0.1",)}, "manifest=0.9"),
        ({"stratify_by": "label"}, "needs splits"),
    ],
)
def test_options_that_make_no_sense_are_refused(chosen: dict[str, Any], named: str, mixed: Listed, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        prepare.prepare(mixed, options(tmp_path / "out", **chosen))
    assert not (tmp_path / "out").exists()


def test_names_of_options_are_unique() -> None:
    """They become flags of one command and keys of one mapping."""
    assert not set(PrepareOptions.__dataclass_fields__) & set(Filters.__dataclass_fields__)


@given(
    st.builds(
        Sample,
        id=st.text(min_size=1),
        clips=st.just(("a.wav",)),
        text=st.none() | st.text(),
        speaker=st.none() | st.text(),
        extra=st.dictionaries(st.text(), st.none() | st.floats() | st.lists(st.floats()) | st.text(), max_size=3),
    )
)
def test_any_sample_becomes_one_line_of_json(sample: Sample) -> None:
    line = to_line(manifest_row(sample))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (row["id"], row.get("text"), row.get("speaker")) == (sample.id, sample.text, sample.speaker)


@pytest.fixture
def registered(mixed: Listed, monkeypatch: pytest.MonkeyPatch) -> Listed:
    monkeypatch.setattr(sources, "SOURCES", {"listed": Listed})
    return mixed


def test_a_recipe_s_source_is_prepared_once(registered: Listed, tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path), "tags": "one", "limit": 4, "max_rejected": 1, "max_duration_s": 20, "text_case": "upper"}
    rows: list[Rejection | None] = []
    manifest = prepare_source("listed", settings, tmp_path / "out", rows.append)
    assert manifest == tmp_path / "out" / "manifest.jsonl"
    assert [sample.text for sample in read_manifest(manifest)] == ["TEXT 0", "TEXT 1", "TEXT 2"]
    assert len(rows) == 4
    assert prepare_source("listed", settings, tmp_path / "out", rows.append) == manifest
    assert len(rows) == 4
    with pytest.raises(DataError, match="limit 4, not 5"):
        prepare_source("listed", settings | {"limit": 5}, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("lister", {}, "source lister: there is none of this name: the closest is listed"),
        ("listed", {"foldre": "x"}, "source listed: unknown key foldre: the closest valid one is folder"),
        ("listed", {"folder": "x", "max_words_per_secnd": 3}, "unknown key max_words_per_secnd: the closest valid one is max_words_per_second"),
        ("listed", {"folder": "x", "overwrite": True}, "unknown key overwrite"),
        ("listed", {}, "source listed: the key folder is missing: add it"),
        ("listed", {"folder": 3}, "source listed: folder must be a path, not 3"),
        ("listed", {"folder": "x", "scale": "big"}, "source listed: scale must be a number, not 'big'"),
        ("listed", {"folder": "x", "text_case": "title"}, "text_case must be one of as-is, lower, sentence, upper, not 'title'"),
    ],
)
def test_a_recipe_s_source_is_checked(name: str, settings: dict[str, Any], named: str, registered: Listed, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        prepare_source(name, settings, tmp_path / "out")


def test_memory_does_not_grow_with_what_is_read_ahead(listed: Callable[..., Listed], tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "a.wav"))
    ahead = []
    done = 0

    def count(rejection: Rejection | None) -> None:
        nonlocal done
        done += 1
        ahead.append(len(Listed.read) - done)

    prepare.prepare(listed(*(Sample(f"{n}", (clip,), text="t") for n in range(100))), options(tmp_path / "out"), count)
    assert max(ahead) <= 8


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "clips" / "0.wav")
    table = "".join(f"{'clips/0.wav' if n % 9 else 'clips/none.wav'},text {n}\n" for n in range(300))
    (tmp_path / "rows.csv").write_text("audio,text\n" + table)
    monkeypatch.chdir(tmp_path)  # Ray's workers run elsewhere
    source = sources.find_source("csv")(Path("rows.csv"))
    for engine in ("local", "ray"):
        prepare.prepare(source, options(Path(engine) / "corpus", engine=engine))
    # Paths in reasons are absolute where workers run elsewhere.
    local, ray = contents(Path("local/corpus")), contents(Path("ray/corpus"))
    assert local.keys() == ray.keys()
    assert [name for name in local if local[name] != ray[name]] == ["card.html", "card.json", "rejected.jsonl"]
    assert {row["id"] for row in lines(Path("ray/corpus/rejected.jsonl"))} == {row["id"] for row in lines(Path("local/corpus/rejected.jsonl"))}
