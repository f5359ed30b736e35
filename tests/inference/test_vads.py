"""Voice activity detectors as baselines: that they are what their users have, one clip never changes another, and what is missing is said."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.audio import load_audio
from audiograft.inference.vads import SileroVad, Waveform, is_vad, open_vad
from audiograft.types import SAMPLE_RATE_HZ, ConfigError

pytest.importorskip("onnxruntime")
pytest.importorskip("webrtcvad")

NAMES = ("silero-vad", "silero-vad:loud", "webrtc-vad", "webrtc-vad:3", "energy-vad")
SPEECH = [load_audio(path).waveform for path in sorted((Path(__file__).parents[2] / "examples").glob("*.wav"))]


def noise(n_samples: int, seed: int = 0, rms: float = 0.05) -> Waveform:
    return np.asarray(rms * np.random.default_rng(seed).standard_normal(n_samples), dtype=np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_speech_is_found_and_silence_is_not(name: str) -> None:
    vad = open_vad(name)
    assert vad.name == name
    assert vad.version[0].isdigit()
    assert (vad.speech_probs(SPEECH) >= vad.threshold).all()
    assert (vad.speech_probs([np.zeros(n, dtype=np.float32) for n in (1, 3200, 16_000)]) < vad.threshold).all()


@pytest.mark.parametrize("name", ["silero-vad", "energy-vad"])
def test_steady_noise_is_no_speech(name: str) -> None:
    assert (open_vad(name).speech_probs([noise(n) for n in (3200, 16_000)]) < 0.5).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_several_clips_score_as_each_alone(name: str, lengths: list[int], seed: int) -> None:
    vad = open_vad(name)
    clips = [SPEECH[0][4000 * number :][:length] + noise(length, seed) for number, length in enumerate(lengths)]
    together = vad.speech_probs(clips)
    assert together.shape == (len(clips),)
    assert together.dtype == np.float64
    assert ((together >= 0) & (together <= 1)).all()
    np.testing.assert_array_equal(together, [float(vad.speech_probs([clip])[0]) for clip in clips[::-1]][::-1])


def test_no_clip_gives_no_score() -> None:
    assert all(open_vad(name).speech_probs([]).shape == (0,) for name in NAMES)


@pytest.mark.parametrize("n_samples", [100, 3200, 20_011])
def test_silero_gives_what_its_own_package_gives(n_samples: int) -> None:
    import torch

    threads = torch.get_num_threads()
    own = importlib.import_module("silero_vad").load_silero_vad(onnx=True)
    torch.set_num_threads(threads)  # its package sets it to 1
    clip = SPEECH[1][2000 : 2000 + n_samples]
    padded = np.pad(clip, (0, max(0, 512 - n_samples)))
    expected = own.audio_forward(torch.from_numpy(padded)[None], SAMPLE_RATE_HZ)[0].tolist()
    vad = SileroVad("silero-vad", "")
    assert vad.window_probs(clip) == pytest.approx(expected, abs=1e-6)
    assert vad.speech_probs([clip])[0] == pytest.approx(max(expected), abs=1e-6)


def test_silero_is_used_without_its_package_and_without_torch() -> None:
    code = "import sys; from audiograft.inference.vads import open_vad; open_vad('silero-vad'); print({'torch', 'silero_vad'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert not done.stderr


def test_webrtc_leaves_a_part_of_a_frame_out_and_pads_what_is_shorter_than_one() -> None:
    vad = open_vad("webrtc-vad")
    clip = SPEECH[0][4000:]
    assert vad.speech_probs([clip[:470]])[0] == vad.speech_probs([clip[: 2 * 160]])[0]
    assert vad.speech_probs([clip[:100]])[0] == vad.speech_probs([np.pad(clip[:100], (0, 60))])[0]


def test_webrtc_says_speech_less_often_the_more_aggressive_it_is() -> None:
    clips = [clip + noise(len(clip), rms=0.02) for clip in SPEECH]
    shares = [float(open_vad(f"webrtc-vad:{mode}").speech_probs(clips).mean()) for mode in range(4)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[3]
    assert open_vad("webrtc-vad").speech_probs(clips).mean() == shares[0]


def test_silero_hears_quiet_clips_as_loud_ones_where_it_is_to() -> None:
    quiet = [np.float32(0.003) * (clip[:6400] + noise(6400, rms=0.02)) for clip in SPEECH]
    loud = open_vad("silero-vad:loud").speech_probs(quiet)
    assert loud.mean() > open_vad("silero-vad").speech_probs(quiet).mean() + 0.1
    np.testing.assert_allclose(loud, open_vad("silero-vad:loud").speech_probs([np.float32(100) * clip for clip in quiet]), atol=1e-4)


@pytest.mark.parametrize("gain", [0.01, 10.0])
def test_energy_is_measured_against_the_clips_own_floor(gain: float) -> None:
    vad = open_vad("energy-vad")
    clips = [SPEECH[0], noise(8000)]
    np.testing.assert_allclose(vad.speech_probs([np.float32(gain) * clip for clip in clips]), vad.speech_probs(clips), atol=0.02)


def test_names_are_known_and_others_are_refused() -> None:
    assert all(map(is_vad, NAMES))
    assert not is_vad("tiny")
    assert not is_vad("silero")
    for name, mend in (
        ("silero", "silero-vad, webrtc-vad, energy-vad"),
        ("webrtc-vad:4", "webrtc-vad:0"),
        ("energy-vad:2", "leave :2 out"),
        ("silero-vad:max", "silero-vad:loud"),
    ):
        with pytest.raises(ConfigError, match=mend) as refusal:
            open_vad(name)
        assert "\n" not in str(refusal.value)


def test_the_same_module_from_another_package_has_a_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package != "webrtcvad":
            raise importlib.metadata.PackageNotFoundError(package)
        return "2.0.10"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert open_vad("webrtc-vad").version == "2.0.10"
    assert open_vad("silero-vad").version == "unknown"


def _without(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    original: Callable[..., Any] = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None if name == missing else find_spec(name, package))


@pytest.mark.parametrize(("name", "missing"), [("silero-vad", "onnxruntime"), ("silero-vad", "silero_vad"), ("webrtc-vad", "webrtcvad")])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, missing: str) -> None:
    _without(monkeypatch, missing)
    with pytest.raises(ConfigError, match=r'pip install "audiograft\[detectors\]"') as refusal:
        open_vad(name)
    assert "\n" not in str(refusal.value)
