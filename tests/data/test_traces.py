"""Traces: what is remembered of a row, and the files that hold it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from babble import babble
from builders import picture, write_clips
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.audio import load_audio
from audiograft.data import traces as traces_module
from audiograft.data import tracing
from audiograft.data.looks import LOOK_BYTES, PictureTrace
from audiograft.data.traces import (
    ClipTrace,
    Trace,
    TraceWriter,
    are_complete,
    audio_digest,
    make_trace,
    normalise,
    read_traces,
    traces_path,
)
from audiograft.data.tracing import traces_of
from audiograft.types import DataError, Sample


def same(first: Trace, second: Trace) -> bool:
    """Traces hold arrays, which have no equality of their own."""
    clips = [(one, other) for one, other in zip(first.clips, second.clips, strict=True)]
    return {**vars(first), "clips": ()} == {**vars(second), "clips": ()} and all(
        (one.digest, one.n_samples) == (other.digest, other.n_samples) and np.array_equal(one.peaks, other.peaks) for one, other in clips
    )


def traces(count: int) -> list[Trace]:
    clip = babble(1.5, 0)
    samples = [Sample(f"r{n}", speaker=f"s{n % 2}", text=f"this is sentence {n}", source="made") for n in range(count)]
    return [make_trace(sample, [clip] * (n % 3)) for n, sample in enumerate(samples)]


def test_texts_are_compared_without_case_punctuation_and_space() -> None:
    assert normalise(" Don't — STOP, Ｎｏｗ!\n") == "dontstopnow"
    assert normalise("Straße 12") == normalise("STRASSE 12")
    assert normalise("नमस्ते") == "नमस्ते"  # vowel signs are marks, and belong to the word
    loud, soft = (make_trace(Sample("a", text=text), []) for text in ("HELLO THERE, WORLD", "hello there world"))
    assert loud.text == soft.text
    assert make_trace(Sample("a", text="..."), []).text is None


def test_what_is_said_is_the_transcript_else_the_response() -> None:
    asked = Sample("a", text="it rains in the village", prompt="Where?", response="village")
    assert make_trace(asked, []).text == make_trace(Sample("b", text="It rains in the village."), []).text
    assert make_trace(Sample("c", prompt="Where?", response="Village"), []).text_bytes == 7


def test_digests_are_of_the_samples_as_16_bits(tmp_path: Path) -> None:
    clip = babble(1.0, 1)
    soundfile.write(tmp_path / "a.flac", clip, 16_000, subtype="PCM_16")
    assert audio_digest(load_audio(tmp_path / "a.flac").waveform) == audio_digest(clip)
    assert audio_digest(clip) != audio_digest(clip[:-1])
    assert audio_digest(np.zeros(100, np.float32)) is None


def test_a_trace_is_small() -> None:
    trace = make_trace(Sample("some/row/id-0001", speaker="1089", recording="1089-134686", text="x" * 150), [babble(10.0, 2)])
    assert len(traces_module._encode(trace)) <= 1024


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.traces", traces(5)
    rows.append(Trace("\udcff\n", None, None, "a" * 70_000, None, 0, (ClipTrace(None, 0, np.zeros(0, np.uint32)),)))
    seen = (PictureTrace("ab", 5, bytes(range(256)) * (LOOK_BYTES // 256) + b"x" * (LOOK_BYTES % 256)), PictureTrace(None, 0), PictureTrace("cd", 7))
    rows += [replace(rows[2], pictures=(*seen, seen[0])), replace(rows[1], pictures=None), Trace("p", None, None, None, None, 0, (), seen)]
    with TraceWriter(path) as writer:
        for trace in rows:
            writer.append(trace)
    assert all(map(same, read_traces(path), rows))
    assert len(list(read_traces(path))) == len(rows)
    assert are_complete(path)
    with TraceWriter(path, complete=False):
        pass
    assert list(read_traces(path)) == []
    assert not are_complete(path)


@settings(deadline=None, max_examples=30)
@given(kept=st.integers(0, 6), torn=st.integers(0, 40))
def test_writing_goes_on_behind_the_records_that_are_kept(tmp_path_factory: pytest.TempPathFactory, kept: int, torn: int) -> None:
    path, rows = tmp_path_factory.mktemp("torn") / "a.traces", traces(6)
    with TraceWriter(path) as writer:
        for trace in rows:
            writer.append(trace)
        writer.flush()
        whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"x" * torn)  # a crash in the middle of a record
    with TraceWriter(path, records=kept) as writer:
        for trace in rows[kept:]:
            writer.append(trace)
    assert path.stat().st_size == whole
    assert all(map(same, read_traces(path), rows))


def test_fewer_records_than_the_run_had(tmp_path: Path) -> None:
    path = tmp_path / "a.traces"
    with TraceWriter(path) as writer:
        writer.append(traces(1)[0])
    with pytest.raises(DataError, match=r"a\.traces: holds 1 traces where 3 are needed"):
        TraceWriter(path, records=3)


def test_every_broken_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.traces"
    with TraceWriter(path) as writer:
        for trace in traces(3):
            writer.append(trace)
    good = path.read_bytes()
    for bad in (good[:-1], good[: len(good) // 2], good[:30], b"RIFF" + good[4:], good + b"abc", b"", good[:60] + b"\0" + good[61:]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"^.*a\.traces: [^\n]*: remove the file") as error:
            list(read_traces(path))
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="can't be read"):
        list(read_traces(tmp_path))
    with pytest.raises(DataError, match="can't be written"):
        TraceWriter(tmp_path / "none" / "a.traces")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    full = "can't be written.*free space"
    with pytest.raises(DataError, match=full):
        TraceWriter(Path("/dev/full"))
    writer = TraceWriter(tmp_path / "a.traces")
    writer._file.close()
    writer._file = open("/dev/full", "wb")  # noqa: SIM115
    writer.append(traces(1)[0])
    with pytest.raises(DataError, match=full):
        writer.flush()
    with pytest.raises(DataError, match=full):
        writer.__exit__(None, None, None)


class TestBesideAManifest:
    @pytest.fixture
    def manifest(self, tmp_path: Path) -> Path:
        return write_clips(tmp_path / "corpus", [babble(1.0 + seed / 4, seed) for seed in range(4)], ["one", "two", "three", "four"])

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The clips that were decoded."""
        seen: list[str] = []
        load = load_audio
        monkeypatch.setattr(tracing, "load_audio", lambda path: (seen.append(path), load(path))[1])
        return seen

    def test_clips_are_decoded_once(self, manifest: Path, decoded: list[str]) -> None:
        counted: list[int] = []
        first = list(traces_of(manifest.parent, workers=2, on_row=lambda: counted.append(1)))
        assert [trace.id for trace in first] == [f"clip-{n}" for n in range(4)]
        assert len(counted) == len(decoded) == 4
        assert first[0].clips[0].digest == audio_digest(babble(1.0, 0))
        assert traces_path(manifest).is_file()
        assert all(map(same, traces_of(manifest), first))
        assert len(decoded) == 4
        assert sorted(path.suffix for path in manifest.parent.iterdir()) == [".jsonl", ".traces", *[".wav"] * 4]

    def test_they_are_decoded_again_where_something_changed(self, manifest: Path, decoded: list[str]) -> None:
        list(traces_of(manifest))
        made_s = traces_path(manifest).stat().st_mtime
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        soundfile.write(manifest.parent / "2.wav", babble(2.0, 9), 16_000)
        os.utime(manifest.parent / "2.wav", (made_s + 5, made_s + 5))
        assert list(traces_of(manifest))[2].clips[0].n_samples == 32_000
        os.utime(traces_path(manifest), (made_s + 9, made_s + 9))
        for change in (
            rows[:3],
            [*rows, {**rows[0], "id": "more"}],
            [{**rows[0], "text": "other"}, *rows[1:]],
            [{**rows[0], "audio": []}, *rows[1:]],
        ):
            decoded.clear()
            manifest.write_text("".join(json.dumps({**row, "prompt": "Say it.", "response": "it"}) + "\n" for row in change))
            assert [trace.id for trace in traces_of(manifest)] == [row["id"] for row in change]
            assert decoded
        traces_path(manifest).write_bytes(b"audiograft traces 0\n")
        decoded.clear()
        assert len(list(traces_of(manifest))) == len(decoded) + 1  # one row has no clip

    def test_what_cannot_be_compared_is_told_and_the_rest_is_not_lost(self, manifest: Path, decoded: list[str]) -> None:
        (manifest.parent / "1.wav").write_bytes(b"no audio")
        (manifest.parent / "3.wav").unlink()
        with manifest.open("a") as file:
            file.write('{"id": "broken"\n{"id": "out", "audio": "../../etc/passwd", "text": "x"}\n')
        for _ in range(2):  # from the clips, then from the file
            refused: list[DataError] = []
            found = list(traces_of(manifest, on_refused=refused.append))
            assert [clip.n_samples for trace in found for clip in trace.clips] == [16_000, 0, 24_000, 0]
            assert [str(error).split(":")[1] for error in refused] == ["5", "6"]
        assert len(decoded) == 4

    def test_pictures_are_looked_at_once_and_again_where_one_changed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        manifest = tmp_path / "manifest.jsonl"
        manifest.write_text('{"id": "a", "images": ["0.png", "1.png"], "video": "v.mp4", "prompt": "what", "response": "this"}\n')
        picture(60).save(tmp_path / "0.png")
        (tmp_path / "v.mp4").write_bytes(b"film")
        looked: list[Sample] = []
        trace = tracing.trace_readable_pictures
        monkeypatch.setattr(tracing, "trace_readable_pictures", lambda sample: (looked.append(sample), trace(sample))[1])
        first, second = (next(traces_of(manifest)) for _ in range(2))
        assert first == second
        assert first.pictures is not None
        assert [(bool(seen.n_bytes), len(seen.look)) for seen in first.pictures] == [(True, LOOK_BYTES), (False, 0), (True, 0)]
        list(traces_of(manifest))
        assert len(looked) == 3  # only a run that came to its end leaves a file
        made_s = traces_path(manifest).stat().st_mtime
        for number, name in enumerate(("0.png", "v.mp4")):
            os.utime(tmp_path / name, (made_s + 5, made_s + 5))
            list(traces_of(manifest))
            assert len(looked) == 4 + number
            os.utime(tmp_path / name, (made_s - 5, made_s - 5))
        # Traces from before pictures were compared will do for rows without any.
        with TraceWriter(traces_path(manifest)) as writer:
            writer.append(replace(first, pictures=None))
        list(traces_of(manifest))
        assert len(looked) == 6
        manifest.write_text('{"id": "a", "prompt": "what", "response": "this"}\n')
        with TraceWriter(traces_path(manifest)) as writer:
            writer.append(replace(first, pictures=None))
        assert [trace.pictures for trace in traces_of(manifest)] == [()]
        assert len(looked) == 6

    def test_a_folder_that_cannot_be_written_to_costs_only_the_file(self, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **options: object) -> None:
            raise DataError("no space")

        monkeypatch.setattr(TraceWriter, "append", refuse)
        assert len(list(traces_of(manifest))) == 4
        monkeypatch.setattr(TraceWriter, "__init__", refuse)
        assert len(list(traces_of(manifest))) == 4

    def test_a_run_that_is_stopped_leaves_nothing(self, manifest: Path) -> None:
        running = traces_of(manifest, workers=1)
        next(running)
        running.close()  # type: ignore[attr-defined]
        assert not [path for path in manifest.parent.iterdir() if "traces" in path.name]
