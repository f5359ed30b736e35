"""Which effects a clip gets: the settings, and the drawing of them by row.

Everything random comes from (seed, epoch, row), so that a resumed run hears what an uninterrupted one would have heard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from audiograft.audio import find_audio, load_audio
from audiograft.data.augment.codecs import CODECS, through_codec
from audiograft.data.augment.effects import (
    NOISE_COLOURS,
    TELEPHONE_HZ,
    add_noise,
    babble,
    change_gain,
    change_speed,
    coloured_noise,
    excerpt,
    hold_peak,
    limit_band,
    reverberate,
    room_response,
)
from audiograft.data.declarations import build
from audiograft.types import WINDOW_SAMPLES, ConfigError

Waveform = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]

SYNTHETIC_ROOM = "synthetic"
TELEPHONE_BAND = "telephone-band"
_CACHED_FILES = 256
"""Decoded noises and room responses that are kept: some 300 MB of 20 s files."""
_RANGES = ("snr_db", "gain_db", "t60_s", "direct_to_reverberant_db", "talkers")
_COUNTS = ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_channels")
_SHARES = ("noise_share", "babble_share", "reverb_share", "codec_share")


@dataclass(frozen=True)
class AugmentRecipe:
    """What training clips go through, in this order: speed, room, noise, codec, level; and what their features lose. Other clips stay as they are."""

    speed: tuple[float, ...] = ()
    """Factors of which each clip draws one: [0.9, 1.0, 1.1]."""
    reverb: tuple[str, ...] = ()
    """Rooms of which a clip draws one: synthetic, or folders of measured responses."""
    reverb_share: float = 0.3
    """Share of clips that get a room."""
    t60_s: tuple[float, ...] = (0.1, 0.7)
    """Reverberation time of synthetic rooms, shortest and longest."""
    direct_to_reverberant_db: tuple[float, ...] = (0.0, 15.0)
    """Direct sound against tail in synthetic rooms."""
    noise: tuple[str, ...] = ()
    """Noises of which a clip draws one: white, pink, brown, blue, violet, or folders of recordings."""
    noise_share: float = 0.5
    """Share of clips that get noise."""
    babble: str | None = None
    """Folder of speech; voices from it talk in the background."""
    babble_share: float = 0.2
    """Share of clips that get babble, of those without other noise."""
    talkers: tuple[float, ...] = (3, 7)
    """Voices in a babble, fewest and most."""
    snr_db: tuple[float, ...] = (5.0, 30.0)
    """Signal-to-noise ratio over the samples in which there is speech, lowest and highest."""
    codecs: tuple[str, ...] = ()
    """Of which a clip draws one: mp3, vorbis, opus, gsm, ulaw, alaw, telephone-band."""
    codec_share: float = 0.2
    """Share of clips that go through a codec."""
    gain_db: tuple[float, ...] = ()
    """Change of level, lowest and highest; nothing clips."""
    time_masks: int = 0
    """SpecAugment: spans of feature frames set to the clip's mean."""
    time_mask_frames: int = 40
    """The longest of them, in feature frames, and never more than a fifth of the clip."""
    frequency_masks: int = 0
    """SpecAugment: bands of channels set to the clip's mean."""
    frequency_mask_channels: int = 15
    """The widest of them."""

    def __post_init__(self) -> None:
        """Raises ConfigError for what can't be."""
        checks: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
            (_RANGES, lambda value: not value or (len(value) == 2 and value[0] <= value[1]), "a lowest and a highest value, such as [0, 20]"),
            (_SHARES, lambda value: 0 <= value <= 1, "from 0 to 1"),
            (_COUNTS, lambda value: value >= 0, "0 or more"),
            (("speed",), lambda value: all(0.5 <= factor <= 2 for factor in value), "factors from 0.5 to 2, such as [0.9, 1.0, 1.1]"),
            (("codecs",), lambda value: {*value} <= {*CODECS, TELEPHONE_BAND}, f"some of {', '.join((*CODECS, TELEPHONE_BAND))}"),
            (("t60_s",), lambda value: all(seconds > 0 for seconds in value), "above 0"),
            (("talkers",), lambda value: all(count >= 1 for count in value), "1 or more"),
        )
        for name, holds, expected in ((name, holds, expected) for names, holds, expected in checks for name in names):
            if not holds(getattr(self, name)):
                raise ConfigError(f"augment.{name} must be {expected}, not {getattr(self, name)!r}")

    @property
    def stretch(self) -> float:
        """By how much clips may become longer, 1 for not at all."""
        return max(1.0, 1 / min(self.speed, default=1.0))


def read_augment(path: str | Path) -> AugmentRecipe:
    """Settings from a YAML file with the keys of `AugmentRecipe`.

    Raises:
        ConfigError: it can't be read, or has a key or value that can't be.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file: correct the path") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: can't be read as YAML ({' '.join(str(error).split())}): write lines such as `gain_db: [-20, 3]`") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no keys: write lines such as `gain_db: [-20, 3]`")
    settings = build(AugmentRecipe, tree, "", str(path))
    if settings.time_masks or settings.frequency_masks:
        raise ConfigError(f"{path}: time_masks and frequency_masks hide features, and here are clips: put them into the recipe that trains")
    return settings


class Augmenter:
    """Draws effects for clips, row by row.

    Args:
        settings: of the recipe.
        seed: of the run.

    Raises:
        ConfigError: a folder without audio.
    """

    def __init__(self, settings: AugmentRecipe, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self._files = {
            folder: _audio_in(folder, key)
            for key, names, own in (
                ("noise", settings.noise, NOISE_COLOURS),
                ("reverb", settings.reverb, (SYNTHETIC_ROOM,)),
                ("babble", (settings.babble,) if settings.babble else (), ()),
            )
            for folder in names
            if folder not in own
        }

    def waveform(self, waveform: Waveform, place: str, longest_samples: int) -> tuple[Waveform, dict[str, Any]]:
        """One clip through a chain of effects.

        Args:
            waveform: (n_samples,) at 16 kHz.
            place: epoch, row and clip; decides what is drawn.
            longest_samples: a speed that would make the clip longer than this is not taken.

        Returns:
            The new waveform, (n_samples,) or more or fewer where its speed changed, and what was done to it.
        """
        rng = self._generator(place, "waveform")
        done: dict[str, Any] = {}
        for effect in (self._speed, self._reverb, self._noise, self._codec, self._gain):
            waveform = effect(waveform, rng, done, longest_samples)
        return hold_peak(waveform), done

    def waveforms(self, waveforms: Sequence[Waveform], place: str) -> tuple[list[Waveform], list[dict[str, Any]]]:
        """All clips of a row, and what was done to each; see `waveform`. None gets longer than a window, unless it is already."""
        heard = [self.waveform(clip, f"{place}/{number}", max(WINDOW_SAMPLES, len(clip))) for number, clip in enumerate(waveforms)]
        return [waveform for waveform, _ in heard], [done for _, done in heard]

    def features(self, features: Features, place: str) -> Features:
        """SpecAugment of (channels, frames), Park et al. 2019 (arXiv:1904.08779), without its warping of time."""
        settings = self.settings
        rng = self._generator(place, "features")
        masked = features.copy()
        channels, frames = features.shape
        mean = features.mean()
        for _ in range(settings.time_masks):
            start, end = _span(frames, min(settings.time_mask_frames, frames // 5), rng)
            masked[:, start:end] = mean
        for _ in range(settings.frequency_masks):
            start, end = _span(channels, min(settings.frequency_mask_channels, channels), rng)
            masked[start:end] = mean
        return masked

    def _generator(self, place: str, what: str) -> np.random.Generator:
        digest = hashlib.blake2b(f"{self.seed}/{place}/{what}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return np.random.default_rng(int.from_bytes(digest, "big"))

    def _speed(self, waveform: Waveform, rng: np.random.Generator, done: dict[str, Any], longest_samples: int) -> Waveform:
        if not self.settings.speed:
            return waveform
        factor = float(rng.choice(self.settings.speed))
        if factor == 1 or len(waveform) / factor > longest_samples:
            return waveform
        done["speed"] = factor
        changed = change_speed(waveform, factor)[:longest_samples]
        return changed if len(changed) else waveform

    def _reverb(self, waveform: Waveform, rng: np.random.Generator, done: dict[str, Any], longest_samples: int) -> Waveform:
        settings = self.settings
        if not settings.reverb or rng.random() >= settings.reverb_share:
            return waveform
        room = str(rng.choice(settings.reverb))
        if room == SYNTHETIC_ROOM:
            done["t60_s"], done["direct_to_reverberant_db"] = _drawn(settings.t60_s, rng), _drawn(settings.direct_to_reverberant_db, rng)
            return reverberate(waveform, room_response(done["t60_s"], done["direct_to_reverberant_db"], rng))
        done["room"] = self._file(room, rng)
        return reverberate(waveform, _decoded(done["room"]))

    def _noise(self, waveform: Waveform, rng: np.random.Generator, done: dict[str, Any], longest_samples: int) -> Waveform:
        settings = self.settings
        noise: Waveform | None = None
        if settings.noise and rng.random() < settings.noise_share:
            name = str(rng.choice(settings.noise))
            if name in NOISE_COLOURS:
                noise = coloured_noise(len(waveform), NOISE_COLOURS[name], rng)
            else:
                name = self._file(name, rng)
                noise = excerpt(_decoded(name), len(waveform), rng)
        elif settings.babble and rng.random() < settings.babble_share:
            talkers = int(rng.integers(int(settings.talkers[0]), int(settings.talkers[1]) + 1))
            name = f"babble of {talkers}"
            noise = babble([_decoded(self._file(settings.babble, rng)) for _ in range(talkers)], len(waveform), rng)
        if noise is None:
            return waveform
        noisy, measured_db = add_noise(waveform, noise, _drawn(settings.snr_db, rng))
        if np.isfinite(measured_db):
            done |= {"noise": name, "snr_db": round(measured_db, 3)}
        return noisy

    def _codec(self, waveform: Waveform, rng: np.random.Generator, done: dict[str, Any], longest_samples: int) -> Waveform:
        if not self.settings.codecs or rng.random() >= self.settings.codec_share:
            return waveform
        done["codec"] = str(rng.choice(self.settings.codecs))
        # What is louder than full scale would be cut by the codec, not by the room.
        waveform = hold_peak(waveform)
        return limit_band(waveform, *TELEPHONE_HZ) if done["codec"] == TELEPHONE_BAND else through_codec(waveform, done["codec"])

    def _gain(self, waveform: Waveform, rng: np.random.Generator, done: dict[str, Any], longest_samples: int) -> Waveform:
        if not self.settings.gain_db:
            return waveform
        done["gain_db"] = _drawn(self.settings.gain_db, rng)
        return change_gain(waveform, done["gain_db"])

    def _file(self, folder: str, rng: np.random.Generator) -> str:
        files = self._files[folder]
        return files[int(rng.integers(len(files)))]


def _drawn(values: Sequence[float], rng: np.random.Generator) -> float:
    return round(float(rng.uniform(values[0], values[-1])), 3)


def _span(length: int, longest: int, rng: np.random.Generator) -> tuple[int, int]:
    width = int(rng.integers(0, longest + 1))
    start = int(rng.integers(0, length - width + 1))
    return start, start + width


def _audio_in(folder: str, key: str) -> list[str]:
    if not Path(folder).is_dir():
        raise ConfigError(f"augment.{key}: {folder} is no folder, and no kind that is known: correct it")
    return [str(path) for path in find_audio([folder])]


@lru_cache(maxsize=_CACHED_FILES)
def _decoded(path: str) -> Waveform:
    return load_audio(path).waveform
