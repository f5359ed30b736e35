"""Decoding: every format, rate and layout gives the same 16 kHz tone, and every bad clip one line that says what is wrong."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import av
import builders
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from audiograft.audio import Clip, find_audio, is_silent, load_audio
from audiograft.types import SAMPLE_RATE_HZ, AudioError

RATES_HZ = (8_000, 16_000, 22_050, 44_100, 48_000)
TONE_HZ = 440.0
AMPLITUDE = 0.5


def tone(rate_hz: int, duration_s: float = 1.5) -> np.ndarray:
    return (AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * np.arange(round(duration_s * rate_hz)) / rate_hz)).astype(np.float32)


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, n_samples).astype(np.float32)


def encode(path: Path, codec: str, rate_hz: int, waveform: np.ndarray, **options: str) -> Path:
    """Write (n,) or (n, channels) with FFmpeg; the container follows from the suffix."""
    channels = np.atleast_2d(waveform.T)
    layout = "mono" if len(channels) == 1 else "stereo"
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        stream.codec_context.open()
        step = stream.codec_context.frame_size or 1024
        for start in range(0, channels.shape[1], step):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels[:, start : start + step]), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def wav_bytes(waveform: np.ndarray, rate_hz: int = SAMPLE_RATE_HZ, **options: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate_hz, **{"format": "WAV", **options})
    return file.getvalue()


def assert_is_tone(clip: Clip, duration_s: float = 1.5, amplitude: float = AMPLITUDE, slack_s: float = 0.001) -> None:
    """Pitch to 1 Hz, level to 6 % (LAME lowers it by 5 %) and length to `slack_s` (AAC and MP3 add padding)."""
    assert clip.waveform.dtype == np.float32
    assert clip.waveform.ndim == 1
    assert clip.duration_s == pytest.approx(duration_s, abs=slack_s)
    middle = clip.waveform[4_000:20_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SAMPLE_RATE_HZ / len(middle) == pytest.approx(TONE_HZ, abs=1.0)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(amplitude / np.sqrt(2), rel=0.06)


def refusal(source: Any) -> str:
    """The message with which a clip is refused: one line."""
    with pytest.raises(AudioError) as caught:
        load_audio(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Formats, rates and layouts


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
def test_soundfile_formats_at_each_rate(tmp_path: Path, suffix: str, rate_hz: int) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(rate_hz), rate_hz)
    assert_is_tone(load_audio(path))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "libmp3lame"), ("m4a", "aac"), ("mp4", "aac"), ("aac", "aac"), ("mka", "flac")])
def test_ffmpeg_formats_at_each_rate(tmp_path: Path, suffix: str, codec: str, rate_hz: int) -> None:
    assert_is_tone(load_audio(encode(tmp_path / f"a.{suffix}", codec, rate_hz, tone(rate_hz))), slack_s=0.3 if suffix == "aac" else 0.15)


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
@pytest.mark.parametrize("suffix", ["webm", "opus", "ogg"])
def test_opus_in_webm_and_ogg(tmp_path: Path, suffix: str, rate_hz: int) -> None:
    assert_is_tone(load_audio(encode(tmp_path / f"a.{suffix}", "libopus", rate_hz, tone(rate_hz))), slack_s=0.03)


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "libmp3lame"), ("m4a", "aac"), ("webm", "libopus"), ("mka", "flac")])
def test_planar_and_packed_stereo_from_ffmpeg_is_mixed_down(tmp_path: Path, suffix: str, codec: str) -> None:
    left_only = np.stack([tone(48_000), np.zeros(72_000, np.float32)], axis=1)
    assert_is_tone(load_audio(encode(tmp_path / f"a.{suffix}", codec, 48_000, left_only)), amplitude=AMPLITUDE / 2, slack_s=0.15)


@pytest.mark.parametrize(
    ("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-24), ("FLOAT", 0), ("DOUBLE", 0)]
)
def test_each_bit_depth_is_read_to_its_own_precision(subtype: str, step: float) -> None:
    waveform = noise(4_000)
    assert np.abs(load_audio(wav_bytes(waveform, subtype=subtype)).waveform - waveform).max() <= step


def test_channels_are_averaged() -> None:
    channels = noise(3_000).reshape(1_000, 3)
    np.testing.assert_allclose(load_audio(wav_bytes(channels, subtype="FLOAT")).waveform, channels.mean(axis=1), atol=1e-7)


def test_opposite_channels_cancel() -> None:
    assert is_silent(load_audio((np.stack([tone(16_000), -tone(16_000)], axis=1), 16_000)).waveform)


def test_at_16_khz_samples_come_back_unchanged_across_blocks() -> None:
    waveform = noise(2_200_001)  # more than two blocks
    np.testing.assert_array_equal(load_audio(wav_bytes(waveform, subtype="FLOAT")).waveform, waveform)


def test_resampling_in_blocks_equals_resampling_at_once() -> None:
    waveform = noise(2_200_001)
    np.testing.assert_allclose(load_audio((waveform, 44_100)).waveform, soxr.resample(waveform, 44_100, 16_000), atol=1e-5)


def test_decoding_needs_the_memory_of_the_result_and_a_few_blocks(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros((48_000 * 120, 2), np.int16), 48_000)
    tracemalloc.start()
    clip = load_audio(tmp_path / "long.wav")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clip.duration_s == 120
    assert peak_bytes < 1.2 * clip.waveform.nbytes + 16 * 2**20  # the stereo source alone is 46 MB as floats


@given(n_samples=st.integers(1, 400), rate_hz=st.integers(1_000, 400_000))
def test_any_number_of_samples_at_any_rate_gives_the_right_length_and_never_none(n_samples: int, rate_hz: int) -> None:
    got = len(load_audio((np.ones(n_samples, np.float32), rate_hz)).waveform)
    assert got >= 1
    assert got == pytest.approx(n_samples * 16_000 / rate_hz, abs=1)


# Sources and names


def test_path_bytes_file_object_and_array_give_the_same_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(tone(16_000), subtype="FLOAT"))
    with path.open("rb") as file:
        sources = (path, str(path), path.read_bytes(), file, io.BytesIO(path.read_bytes()), (tone(16_000), 16_000))
        clips = [load_audio(source) for source in sources]
        assert not file.closed
    assert [clip.name for clip in clips] == [str(path), str(path), "<bytes>", str(path), "<file>", "<array>"]
    for clip in clips:
        np.testing.assert_array_equal(clip.waveform, tone(16_000))


def test_a_file_object_is_read_from_its_start_and_can_be_read_again(tmp_path: Path) -> None:
    file = io.BytesIO(encode(tmp_path / "a.mp3", "libmp3lame", 44_100, tone(44_100)).read_bytes())
    file.seek(0, io.SEEK_END)
    np.testing.assert_array_equal(load_audio(file).waveform, load_audio(file).waveform)


def test_a_pipe_is_read() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(wav_bytes(noise(1_000)))
    with os.fdopen(reader, "rb") as file:
        clip = load_audio(file)
    assert (clip.name, len(clip.waveform)) == ("<file>", 1_000)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    for name in ("a.mp3", "a.raw", "a"):
        (tmp_path / name).write_bytes(wav_bytes(tone(16_000)))
        assert_is_tone(load_audio(tmp_path / name))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_integer_arrays_are_scaled_by_their_range(dtype: type) -> None:
    limits = np.iinfo(dtype)
    waveform = load_audio((np.array([limits.min, limits.min // 2, 0, limits.max], dtype), 16_000)).waveform
    np.testing.assert_allclose(waveform, [-1, -0.5, 0, 1], atol=2.0**-7)


def test_unsigned_arrays_are_centred() -> None:
    np.testing.assert_array_equal(load_audio((np.array([0, 64, 128, 192], np.uint8), 16_000)).waveform, [-1, -0.5, 0, 0.5])


def test_float64_arrays_are_taken_as_they_are() -> None:
    assert load_audio((np.array([0.25, -1.5]), 16_000)).waveform.tolist() == [0.25, -1.5]


def test_the_callers_array_is_not_shared() -> None:
    samples = tone(16_000)
    load_audio((samples, 16_000)).waveform[:] = 0
    np.testing.assert_array_equal(samples, tone(16_000))


def test_one_sample_is_a_clip(tmp_path: Path) -> None:
    for rate_hz in RATES_HZ:
        soundfile.write(tmp_path / "a.wav", np.array([0.5]), rate_hz)
        assert load_audio(tmp_path / "a.wav").duration_s > 0


def test_all_zero_audio_is_a_silent_clip() -> None:
    assert is_silent(load_audio(wav_bytes(np.zeros(800))).waveform)


def test_the_smallest_16_bit_sample_of_either_sign_is_not_silent() -> None:
    for sample in (1, -1):
        assert not is_silent(load_audio((np.array([0, sample, 0], np.int16), 16_000)).waveform)


# Bad clips: one line each


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.wav").startswith(f"{tmp_path}/no.wav: no such file")


def test_path_that_the_system_refuses() -> None:
    assert "can't be opened" in refusal("a" * 5000 + ".wav")
    assert "can't be opened" in refusal("a\0.wav")


def test_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: is a folder")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(tone(16_000)))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("audiograft.files.open", refuse, raising=False)  # root may read everything, so chmod proves nothing
    assert refusal(path).startswith(f"{path}: permission denied")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert refusal(tmp_path / "a.wav") == f"{tmp_path}/a.wav: is empty (0 bytes): record or copy it again"
    assert refusal(b"").startswith("<bytes>: is empty")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac"])
def test_text_named_as_audio_is_refused_without_noise_on_stderr(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text("these are only words\n" * 5000)
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: not audio")
    assert capfd.readouterr().err == ""


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\7" * 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WebP", "BMP", "TIFF", "HEIC"])
def test_an_image_is_called_one_and_sent_to_its_option(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.wav"
    if kind == "HEIC":
        path.write_bytes(HEIC)
    else:
        builders.picture(40).save(path, kind)
    said = f"is an image ({kind}), no audio: give it as an image, with --image or images="
    assert refusal(path) == f"{path}: {said}"
    assert refusal(path.read_bytes()) == f"<bytes>: {said}"


def test_a_clip_that_begins_like_an_image_is_heard(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", "aac", 16_000, tone(16_000))
    content = bytearray(path.read_bytes())
    content[8:12] = b"mif1"
    assert_is_tone(load_audio(bytes(content)), slack_s=0.2)


def test_a_list_of_other_files_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("private.wav").write_bytes(wav_bytes(tone(16_000)))
    assert "not audio" in refusal(b"ffconcat version 1.0\nfile 'private.wav'\n")


def test_picture_without_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        for part in (av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)), None):
            container.mux(stream.encode(part))
    assert "holds no audio" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("options", [{"subtype": "PCM_16"}, {"subtype": "FLOAT"}, {"format": "AIFF"}, {"format": "WAVEX"}, {"format": "FLAC"}])
def test_truncated_wav_aiff_and_flac(options: dict[str, str]) -> None:
    whole = wav_bytes(noise(30_000), **options)
    load_audio(whole)
    for size_bytes in (len(whole) // 3, len(whole) - 100):
        assert "cut off" in refusal(whole[:size_bytes])


def test_truncated_wav_says_how_much_is_missing() -> None:
    assert "1956 of 2000 bytes" in refusal(wav_bytes(noise(1_000))[:2000])


@pytest.mark.parametrize("stated_bytes", [0, 0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
def test_streamed_wav_without_a_stated_length_is_read_to_its_end(stated_bytes: int) -> None:
    data = bytearray(wav_bytes(tone(16_000)))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", stated_bytes)
    assert_is_tone(load_audio(bytes(data)), slack_s=0)


def test_streamed_flac_without_a_stated_length_is_read_to_its_end() -> None:
    data = bytearray(wav_bytes(tone(16_000), format="FLAC"))
    data[21] &= 0xF0  # the total number of samples: the last 36 bits before the MD5 sum
    data[22:26] = bytes(4)
    assert_is_tone(load_audio(bytes(data)), slack_s=0)


def test_truncated_mp3(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encode(tmp_path / "a.mp3", "libmp3lame", 44_100, noise(44_100 * 3)).read_bytes()
    assert load_audio(whole).duration_s == pytest.approx(3, abs=0.01)
    for percent in (20, 50, 90):
        assert "cut off" in refusal(whole[: len(whole) * percent // 100])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("name", ["a.mp3", "it's: [0] a,b;c=d%20\\.mp3", "é.mp3"])
def test_a_whole_mp3_is_decoded_in_one_go_to_the_same_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_hz: int, name: str) -> None:
    stereo = noise(rate_hz * 14).reshape(-1, 2)
    whole = encode(tmp_path / "made.mp3", "libmp3lame", rate_hz, stereo).rename(tmp_path / name).read_bytes()
    packet_by_packet = load_audio(whole)
    monkeypatch.setattr("audiograft.audio.ffmpeg.av.open", None)
    clip = load_audio(tmp_path / name)
    np.testing.assert_array_equal(clip.waveform, packet_by_packet.waveform)
    assert clip.native_rate_hz == rate_hz
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_audio(name).waveform, clip.waveform)


def test_an_mp3_on_disk_that_is_cut_joined_or_oddly_named_is_read_as_its_bytes_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encode(tmp_path / "a.mp3", "libmp3lame", 44_100, noise(44_100 * 3)).read_bytes()
    path = tmp_path / "b.mp3"
    for percent in (20, 50, 90):
        path.write_bytes(whole[: len(whole) * percent // 100])
        assert "cut off" in refusal(path)
    for data in (whole + whole, whole + bytes(3_000), whole[:20_000] + bytes(200) + whole[20_200:]):
        path.write_bytes(data)
        np.testing.assert_array_equal(load_audio(path).waveform, load_audio(data).waveform)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp3"))
    odd.write_bytes(whole)
    np.testing.assert_array_equal(load_audio(odd).waveform, load_audio(whole).waveform)
    assert capfd.readouterr().err == ""


def test_what_was_decoded_before_a_late_error_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode(tmp_path / "a.mp3", "libmp3lame", 44_100, noise(44_100)).read_bytes()
    expected = load_audio(whole)
    true_open = av.open

    class Breaking:
        """A container that fails with an error of its own behind its last packet."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self.container = true_open(*args, **options)

        def __enter__(self) -> Breaking:
            return self

        def __exit__(self, *_: object) -> None:
            self.container.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def demux(self, stream: Any) -> Any:
            yield from self.container.demux(stream)
            raise av.error.EOFError(1, "the end")

    monkeypatch.setattr("audiograft.audio.ffmpeg.av.open", Breaking)
    np.testing.assert_array_equal(load_audio(whole).waveform, expected.waveform)


def test_a_clip_knows_the_rate_it_was_stored_at(tmp_path: Path) -> None:
    assert [load_audio(wav_bytes(tone(rate_hz), rate_hz)).native_rate_hz for rate_hz in RATES_HZ] == list(RATES_HZ)
    assert load_audio(encode(tmp_path / "a.m4a", "aac", 22_050, tone(22_050))).native_rate_hz == 22_050
    assert load_audio((tone(8_000), 8_000)).native_rate_hz == 8_000


def test_mp3_without_a_stated_length_is_read_to_its_end(tmp_path: Path) -> None:
    assert_is_tone(load_audio(encode(tmp_path / "a.mp3", "libmp3lame", 44_100, tone(44_100), write_xing="0")), slack_s=0.1)


def test_mp3_with_junk_after_its_stated_length_is_whole(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp3", "libmp3lame", 44_100, tone(44_100)).read_bytes()
    assert_is_tone(load_audio(whole + b"LYRICSBEGIN la la LYRICS200" + bytes(3_000)), slack_s=0.05)


def test_joined_mp3s_are_read_to_the_end_of_the_last(tmp_path: Path) -> None:
    first = encode(tmp_path / "a.mp3", "libmp3lame", 44_100, tone(44_100)).read_bytes()
    assert first.startswith(b"ID3")  # the tag of the second file is junk in the middle of the joined one
    assert load_audio(first + first).duration_s == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("aac", "aac"), ("webm", "libopus"), ("opus", "libopus"), ("mka", "flac")])
def test_other_truncated_formats(tmp_path: Path, suffix: str, codec: str) -> None:
    whole = encode(tmp_path / f"a.{suffix}", codec, 48_000, noise(48_000 * 3), movflags="faststart").read_bytes()
    load_audio(whole)
    assert "cut off" in refusal(whole[: len(whole) * 6 // 10])


def test_truncated_ogg_vorbis() -> None:
    whole = wav_bytes(noise(48_000), format="OGG")
    assert "cut off" in refusal(whole[: len(whole) - 50])
    assert "cut off" in refusal(whole[: whole.rindex(b"OggS") + 10])


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "OGG"])
def test_zero_samples_in_a_file(kind: str) -> None:
    assert "holds no samples" in refusal(wav_bytes(np.zeros(0), format=kind))


@pytest.mark.parametrize("shape", [(0,), (0, 2), (5, 0)])
def test_zero_samples_in_an_array(shape: tuple[int, ...]) -> None:
    assert refusal((np.zeros(shape), 16_000)).startswith("<array>: holds no samples")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_or_infinite_samples(bad: float) -> None:
    samples = noise(1_200_000)
    samples[-1] = bad
    assert "NaN or infinite" in refusal((samples, 44_100))
    assert "NaN or infinite" in refusal(wav_bytes(samples, subtype="FLOAT"))


def test_samples_too_large_for_float32() -> None:
    assert "NaN or infinite" in refusal((np.array([0.0, 1e300]), 16_000))


@pytest.mark.parametrize("rate_hz", [0, -16_000, 16, float("nan"), float("inf")])
def test_impossible_rate_of_an_array(rate_hz: float) -> None:
    assert f"{rate_hz:g} Hz" in refusal((tone(16_000), rate_hz))
    assert f"{rate_hz:g} Hz" in refusal((np.zeros(0), rate_hz))


def test_impossible_rate_in_a_file() -> None:
    for rate_hz in (0, 16):
        data = bytearray(wav_bytes(tone(16_000)))
        data[24:28] = struct.pack("<I", rate_hz)
        assert refusal(bytes(data)).startswith("<bytes>: ")


def test_channels_first_array() -> None:
    assert "transpose" in refusal((np.zeros((2, 16_000)), 16_000))


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ((16_000, np.zeros(4)), "give (NumPy array, rate in Hz)"),
        (([0.0, 0.1], 16_000), "give (NumPy array, rate in Hz)"),
        ((np.zeros(4),), "give (NumPy array, rate in Hz)"),
        ((np.zeros((2, 2, 2)), 16_000), "3 dimensions"),
        ((np.array(1.0), 16_000), "0 dimensions"),
        ((np.zeros(4, complex), 16_000), "complex128"),
        (None, "NoneType is no audio"),
        (io.StringIO("words"), "binary mode"),
    ],
)
def test_what_is_no_source(source: Any, hint: str) -> None:
    assert hint in refusal(source)


# Finding clips


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.wav", "a.MP3", "sub/deep/c.flac", "notes.txt", ".hidden.wav", ".git/d.wav", "empty/notes.txt", "odd[1].wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_stands_for_the_audio_in_it(folder: Path) -> None:
    assert find_audio([folder]) == [folder / "a.MP3", folder / "b.wav", folder / "odd[1].wav", folder / "sub/deep/c.flac"]


def test_files_stay_as_given_even_missing_or_of_another_kind(folder: Path) -> None:
    assert find_audio(["notes.txt", "no.wav", ".hidden.wav", "b.wav"]) == [Path(p) for p in ("notes.txt", "no.wav", ".hidden.wav", "b.wav")]


def test_each_clip_is_found_once_under_its_first_name(folder: Path) -> None:
    assert find_audio(["./b.wav", "b.wav", folder / "b.wav", "sub", "sub/deep"]) == [Path("b.wav"), Path("sub/deep/c.flac")]


def test_a_glob_matches_audio_files_and_folders(folder: Path) -> None:
    assert find_audio(["[ab].*"]) == [Path("a.MP3"), Path("b.wav")]
    assert find_audio(["s*"]) == [Path("sub/deep/c.flac")]
    assert find_audio(["**/*.flac"]) == [Path("sub/deep/c.flac")]


def test_a_file_with_glob_characters_in_its_name_is_a_file(folder: Path) -> None:
    assert find_audio(["odd[1].wav"]) == [Path("odd[1].wav")]


def test_a_folder_without_audio(folder: Path) -> None:
    with pytest.raises(AudioError, match="^empty: no audio in this folder"):
        find_audio(["b.wav", "empty"])


@pytest.mark.parametrize("address", ["https://example.org/a.wav", "s3://calls/*.wav", "https://example.org/a.wav?x=[1]"])
def test_an_address_is_called_one(folder: Path, address: str) -> None:
    for use in (find_audio, lambda paths: load_audio(paths[1])):
        with pytest.raises(AudioError) as error:
            use(["b.wav", address])
        assert str(error.value) == f"{address} is an address, and addresses are never fetched: download it first, and name the file"
        assert error.value.kind == "missing"


@pytest.mark.parametrize("pattern", ["*.ogg", "*.txt"])
def test_a_glob_without_audio(folder: Path, pattern: str) -> None:
    with pytest.raises(AudioError, match="matches no audio file"):
        find_audio([pattern])


def test_a_folder_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AudioError, match=r"sub: this folder can't be read \(Permission denied\)"):
        find_audio(["sub"])
