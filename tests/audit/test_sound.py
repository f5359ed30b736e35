"""What a browser is given to hear and to draw."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from audiograft.audit.peaks import N_PEAKS, clip_peaks
from audiograft.audit.sound import media_type, wav_bytes
from audiograft.types import AudioError


def coded(path: Path, codec: str, rate_hz: int = 48_000) -> Path:
    """Half a second of noise by FFmpeg's encoders, for what libsndfile does not write."""
    samples = (np.random.default_rng(0).standard_normal((1, rate_hz // 2)) * 0.1).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=rate_hz, frame_size=stream.codec_context.frame_size or 0
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "subtype", "kind"),
    [
        ("a.wav", "PCM_16", "audio/wav"),
        ("a.WAV", "FLOAT", "audio/wav"),
        ("a.wav", "ULAW", "audio/wav"),
        ("a.wav", "IMA_ADPCM", None),
        ("a.flac", "PCM_16", "audio/flac"),
        ("a.ogg", "VORBIS", "audio/ogg"),
        ("a.opus", "OPUS", "audio/ogg"),
        ("a.mp3", None, "audio/mpeg"),
        ("a.aiff", "PCM_16", None),
    ],
)
def test_what_browsers_play_is_known_by_suffix_and_content(tmp_path: Path, name: str, subtype: str | None, kind: str | None) -> None:
    path = tmp_path / name
    form = {"opus": "OGG"}.get(path.suffix[1:], path.suffix[1:].upper())
    soundfile.write(path, np.zeros(16_000, dtype=np.float32), 16_000, format=form, subtype=subtype)
    assert media_type(path) == kind
    samples, rate_hz = soundfile.read(io.BytesIO(wav_bytes(path)))
    assert rate_hz == 16_000
    assert len(samples) == pytest.approx(16_000, abs=1200)


@pytest.mark.parametrize(("name", "codec", "kind"), [("a.m4a", "aac", "audio/mp4"), ("b.m4a", "alac", None), ("a.webm", "libopus", "audio/webm")])
def test_lossless_m4a_is_not_played_and_lossy_is(tmp_path: Path, name: str, codec: str, kind: str | None) -> None:
    path = coded(tmp_path / name, codec)
    assert media_type(path) == kind
    assert len(wav_bytes(path)) > 14_000


def test_a_file_that_is_not_what_its_name_says_is_not_handed_out(tmp_path: Path) -> None:
    for name, content in {
        "a.wav": b"<html>",
        "b.mp3": b"#EXTM3U\nhttp://example.org/\n",
        "c.ogg": b"",
        "d.m4a": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert media_type(tmp_path / name) is None
        with pytest.raises(AudioError, match=name):
            wav_bytes(tmp_path / name)
    assert media_type(tmp_path / "gone.wav") is None


def test_peaks_are_the_outline_of_the_clip(tmp_path: Path) -> None:
    waveform = np.zeros(40_000, dtype=np.float32)
    waveform[20_000:30_000] = -0.25
    waveform[30_000:] = 0.5
    soundfile.write(tmp_path / "a.wav", waveform, 16_000, subtype="FLOAT")
    peaks = clip_peaks(tmp_path / "a.wav")
    assert peaks.duration_s == 2.5
    assert peaks.peaks == (0,) * 200 + (128,) * 100 + (255,) * 100
    assert peaks.as_row() == {"peaks": list(peaks.peaks), "duration_s": 2.5}


@pytest.mark.parametrize("n_samples", [1, 7, 399, 400, 401, 12_345])
def test_any_length_has_as_many_peaks(tmp_path: Path, n_samples: int) -> None:
    path = tmp_path / f"{n_samples}.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, n_samples).astype(np.float32), 16_000, subtype="FLOAT")
    peaks = clip_peaks(path).peaks
    assert len(peaks) == N_PEAKS
    assert max(peaks) == 255
    assert min(peaks) >= 0


def test_silence_and_what_is_nearly_silent_stay_flat(tmp_path: Path) -> None:
    for name, level, peak in (("silent", 0.0, 0), ("faint", 1 / 2560, 26)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(1600, level, dtype=np.float32), 16_000, subtype="FLOAT")
        assert set(clip_peaks(tmp_path / f"{name}.wav").peaks) == {peak}
