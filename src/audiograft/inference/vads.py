"""The voice activity detectors that people use, as baselines: how sure each is that a clip holds speech.

They look at frames, and a clip is one decision; how frames make a clip is stated with each. Nothing is learnt or carried over from clip to clip.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from audiograft.types import SAMPLE_RATE_HZ, ConfigError

Waveform = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

THRESHOLD = 0.5
"""From this score on a clip is taken for speech: silero's own default; of WebRTC's, half of the frames."""
_LOUD, _LOUD_PEAK, _QUIETEST_PEAK = "loud", 0.5, 1e-4
_RISE_DB, _SLOPE_DB = 6.0, 3.0


class Vad(Protocol):
    """A detector.

    Attributes:
        name: as it was asked for.
        version: of the package that it comes from.
        threshold: default score from which a clip is taken for speech.
    """

    name: str
    version: str
    threshold: float

    def speech_probs(self, waveforms: Sequence[Waveform]) -> FloatArray:
        """Scores between 0 and 1 of clips (n_samples,) at 16 kHz, one each (n_clips,); of several the same as of each alone."""
        ...


def is_vad(name: str) -> bool:
    """Whether `open_vad` knows the name."""
    return name.partition(":")[0] in _OPENERS


def open_vad(name: str) -> Vad:
    """Open a detector by its name: `silero-vad` (`silero-vad:loud`: each clip is made loud first), `webrtc-vad` (`webrtc-vad:0` to
    `webrtc-vad:3`: how aggressive), `energy-vad`.

    Raises:
        ConfigError: an unknown name or setting, or a package that is missing.
    """
    kind, _, setting = name.partition(":")
    if kind not in _OPENERS:
        raise ConfigError(f"no voice activity detector {name!r}: take {', '.join(_OPENERS)}")
    return _OPENERS[kind](name, setting)


class SileroVad:
    """Silero VAD (Silero Team 2021 and later), its ONNX model in windows of 512 samples (32 ms).

    As in silero's own `get_speech_timestamps`, each window is seen with the last 64 samples of the one before, the state starts at zero and the
    last window is padded with zeros. The clip's score is that of its likeliest window, so the clip is speech where at least one window is. Without
    its `min_speech_duration_ms` of 250 that function finds a segment in just the same clips; with it, none that is shorter.
    Silero hears quiet clips less well: with the setting `loud` each is scaled to a peak of 0.5 before.
    Silero's package is not imported: that would set the number of threads of torch for the whole process to 1.
    """

    def __init__(self, name: str, setting: str) -> None:
        """Raises ConfigError where onnxruntime or silero-vad is missing, or the setting is none."""
        if setting not in ("", _LOUD):
            raise ConfigError(f"{name}: {setting!r} is no setting of silero-vad: take silero-vad, or silero-vad:{_LOUD}")
        runtime, spec = _import("onnxruntime", name), importlib.util.find_spec("silero_vad")
        if spec is None or spec.origin is None:
            raise _missing(name, "silero-vad")
        options = runtime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        model = Path(spec.origin).parent / "data" / "silero_vad.onnx"
        self._session = runtime.InferenceSession(str(model), sess_options=options, providers=["CPUExecutionProvider"])
        self._is_loud = setting == _LOUD
        self.name = name
        self.version = _version("silero-vad")
        self.threshold = THRESHOLD

    def speech_probs(self, waveforms: Sequence[Waveform]) -> FloatArray:
        """See `Vad`."""
        return np.array([max(self.window_probs(waveform)) for waveform in waveforms], dtype=np.float64)

    def window_probs(self, waveform: Waveform) -> list[float]:
        """The probability of speech in each window of one clip."""
        if self._is_loud:
            waveform = waveform * np.float32(_LOUD_PEAK / max(float(np.max(np.abs(waveform), initial=0)), _QUIETEST_PEAK))
        state, context = np.zeros((2, 1, 128), dtype=np.float32), np.zeros(64, dtype=np.float32)
        probs = []
        for window in _windows(waveform, 512):
            seen = np.concatenate([context, window])[None]
            prob, state = self._session.run(None, {"input": seen, "state": state, "sr": np.array(SAMPLE_RATE_HZ, dtype=np.int64)})
            probs.append(float(prob[0, 0]))
            context = window[-64:]
        return probs


class WebrtcVad:
    """The detector of WebRTC, Gaussian mixtures over the energies of six bands, by frames of 10 ms.

    It says yes or no of each frame; the score is the share of frames with a yes. A last part of a frame is left out, as in py-webrtcvad's example;
    a clip shorter than one frame is padded with zeros to one. Longer frames, of 20 and 30 ms, were worse on clips of a second and less: their state
    takes the first of them to settle. How aggressive it is in saying no, 0 to 3, is 0 as in the library itself.
    """

    def __init__(self, name: str, setting: str) -> None:
        """Raises ConfigError where webrtcvad is missing, or the setting is none."""
        if setting not in ("", "0", "1", "2", "3"):
            raise ConfigError(f"{name}: {setting!r} is no aggressiveness: take webrtc-vad:0 (says speech most often) to webrtc-vad:3")
        self._module = _import("webrtcvad", name, "webrtcvad-wheels")
        self._mode = int(setting or 0)
        self.name = name
        self.version = _version("webrtcvad-wheels", "webrtcvad")
        self.threshold = THRESHOLD

    def speech_probs(self, waveforms: Sequence[Waveform]) -> FloatArray:
        """See `Vad`."""
        return np.array([self._share(waveform) for waveform in waveforms], dtype=np.float64)

    def _share(self, waveform: Waveform) -> float:
        vad = self._module.Vad(self._mode)  # it adapts to what it hears, so each clip has its own
        frame_samples = SAMPLE_RATE_HZ * 10 // 1000
        whole = waveform[: max(len(waveform) // frame_samples, 1) * frame_samples]
        voiced = []
        for frame in _windows(whole, frame_samples):
            samples = np.clip(np.round(frame * 32768), -32768, 32767).astype("<i2")
            voiced.append(vad.is_speech(samples.tobytes(), SAMPLE_RATE_HZ))
        return float(np.mean(voiced))


class EnergyVad:
    """Energy above a floor that is the clip's own: frames of 20 ms each 10 ms, the floor their 10th percentile in decibels.

    Speech rises and falls where steady noise does not. The score is the logistic of how far the 90th percentile lies above the floor, 0.5 where that
    is 6 dB.
    """

    def __init__(self, name: str, setting: str) -> None:
        """Raises ConfigError where a setting is given."""
        from audiograft import __version__

        _refuse_setting(name, setting)
        self.name = name
        self.version = __version__
        self.threshold = THRESHOLD

    def speech_probs(self, waveforms: Sequence[Waveform]) -> FloatArray:
        """See `Vad`."""
        return np.array([1 / (1 + np.exp((_RISE_DB - _rise_db(waveform)) / _SLOPE_DB)) for waveform in waveforms], dtype=np.float64)


def _rise_db(waveform: Waveform) -> float:
    frame_samples, hop_samples = SAMPLE_RATE_HZ * 20 // 1000, SAMPLE_RATE_HZ * 10 // 1000
    padded = np.pad(waveform, (0, max(0, frame_samples - len(waveform)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame_samples)[::hop_samples]
    levels_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    floor_db, top_db = np.percentile(levels_db, [10, 90])
    return float(top_db - floor_db)


def _windows(waveform: Waveform, n_samples: int) -> Iterator[Waveform]:
    """Windows one after another, the last padded with zeros; one at least."""
    for start in range(0, max(len(waveform), 1), n_samples):
        window = waveform[start : start + n_samples]
        yield np.pad(window, (0, n_samples - len(window))).astype(np.float32)


def _import(module: str, name: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(name, package or module) from error


def _version(*packages: str) -> str:
    """That of the first package that is there: more than one brings the same module."""
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _missing(name: str, package: str) -> ConfigError:
    return ConfigError(f'{name} needs {package}: pip install "audiograft[detectors]"')


def _refuse_setting(name: str, setting: str) -> None:
    if setting:
        raise ConfigError(f"{name}: {name.partition(':')[0]} has no settings: leave :{setting} out")


_OPENERS: dict[str, Callable[[str, str], Vad]] = {"silero-vad": SileroVad, "webrtc-vad": WebrtcVad, "energy-vad": EnergyVad}
VADS = ("silero-vad", "silero-vad:loud", "webrtc-vad", "energy-vad")
"""What to name to whoever looks for one."""
