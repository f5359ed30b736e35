"""The voices of espeak-ng and flite, which of them are held out, and how a sentence is spoken.

One process per clip: espeak-ng keeps state between utterances (its noise generator, for one), so a fresh process is what makes the same
request give the same bytes in any order and on any number of workers.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from audiograft.types import SAMPLE_RATE_HZ, AudiograftError

VOICE_SETS = ("training", "held-out", "languages")
INSTALL_HINT = "install them with: apt-get install espeak-ng flite (Debian, Ubuntu) or: brew install espeak-ng flite (macOS)"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ACCENTS = ("en-us", "en-us", "en-gb", "en-us-nyc", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbcwmd", "en-029")
"""espeak-ng's accents used in training; American English twice, so that it is drawn as often as its use suggests."""
_VARIANTS = _words(
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen adam anika announcer "
    "antonio aunty belinda benjamin boris caleb croak david ed edward edward2 f1 f2 f3 f4 grandma grandpa gustave iven iven2 iven3 "
    "iven4 john kaukovalta klatt klatt2 klatt3 klatt4 linda m1 m2 m3 m4 m5 m6 m7 marcelo max michel miguel norbert pablo paul pedro "
    "quincy rob robert sandro shelby steph steph2 steph3 travis victor zac"
)
"""espeak-ng's variants used in training. Left out: f5 and m8 (held out) and the effects (whisper, robosoft, Demonic, UniRobot and the like)."""
DETECTOR_DEV_VARIANTS = frozenset({"f2", "m3", "john", "linda", "victor", "belinda", "miguel", "anika"})
"""Variants of espeak-ng, in any accent, that dev splits of detectors have to themselves."""
_LANGUAGES = _words(
    "af az be bg bs ca cs cv cy da de el eo es es-419 et eu fi fr-be fr-ch fr-fr ga gd hr ht hu hy ia id io is it jbo kl ku la lb lfn lt "
    "ltg lv mi mk ms mt nb nci nl nog om pap pl pt pt-br py quc ro ru sk sl smj sq sr sv sw tk tn tr tt uk uz vi"
)
"""Languages of espeak-ng that read Latin letters. They pronounce English sentences by their own rules: sounds of speech, but not these words."""
_LANGUAGE_VARIANTS = tuple(variant for variant in _VARIANTS if variant not in DETECTOR_DEV_VARIANTS)
_FLITE_TRAINING = ("kal", "kal16", "awb", "rms")
_FLITE_SHARE = 0.3


@dataclass(frozen=True)
class Voice:
    """A voice of one engine (`espeak-ng` or `flite`), by the name that the engine gives it."""

    engine: str
    name: str

    @property
    def speaker(self) -> str:
        """The name that stands in manifests."""
        return f"{self.engine}:{self.name}"


HELD_OUT = (Voice("flite", "slt"), Voice("espeak-ng", "en-us+f5"), Voice("espeak-ng", "en-us+m8"), Voice("espeak-ng", "en-gb-x-gbclan"))
"""Never used in training or tuning: not these variants and not this accent, in any combination."""


@dataclass(frozen=True)
class Delivery:
    """How a sentence is spoken: `rate` and `pitch` are factors around the voice's own (1 = as it is)."""

    rate: float
    pitch: float


def draw_voice(voices: str, row: int, rng: random.Random) -> Voice:
    """The voice of a row: held-out voices in turn, so that each has an equal share; others at random."""
    if voices == "held-out":
        return HELD_OUT[row % len(HELD_OUT)]
    if voices == "languages":
        accent, variants = rng.choice(_LANGUAGES), _LANGUAGE_VARIANTS
    elif rng.random() < _FLITE_SHARE:
        return Voice("flite", rng.choice(_FLITE_TRAINING))
    else:
        accent, variants = rng.choice(_ACCENTS), _VARIANTS
    # One clip in twelve has the accent's own voice, without a variant.
    return Voice("espeak-ng", accent if rng.random() < 1 / 12 else f"{accent}+{rng.choice(variants)}")


def draw_delivery(rng: random.Random) -> Delivery:
    """A natural variation of rate and pitch."""
    return Delivery(rate=rng.uniform(0.85, 1.2), pitch=rng.uniform(0.75, 1.3))


@cache
def _binary(engine: str) -> str:
    path = shutil.which(engine)
    if path is None:
        raise AudiograftError(f"{engine} is not installed; {INSTALL_HINT}")
    return path


def require_engines() -> None:
    """Raise `AudiograftError` with the command that installs what is missing."""
    for engine in ("espeak-ng", "flite"):
        _binary(engine)


_FLITE_F0_HZ = {"kal": 105.0, "kal16": 105.0, "awb": 105.0, "rms": 100.0, "slt": 170.0}
_ESPEAK_WORDS_PER_MINUTE = 165
_ESPEAK_PITCH = 50


def _command(text: str, voice: Voice, delivery: Delivery, out: Path) -> list[str]:
    if voice.engine == "espeak-ng":
        rate = round(_ESPEAK_WORDS_PER_MINUTE * delivery.rate)
        pitch = min(99, max(0, round(_ESPEAK_PITCH * delivery.pitch)))
        return [_binary("espeak-ng"), "-v", voice.name, "-s", str(rate), "-p", str(pitch), "-w", str(out), text]
    return [
        _binary("flite"), "-voice", voice.name, "--setf", f"duration_stretch={1 / delivery.rate:.3f}",
        "--setf", f"int_f0_target_mean={_FLITE_F0_HZ[voice.name] * delivery.pitch:.1f}", "-t", text, "-o", str(out),
    ]  # fmt: skip


def speak(text: str, voice: Voice, delivery: Delivery) -> npt.NDArray[np.float32]:
    """Mono waveform at 16 kHz, in [-1, 1].

    Raises:
        AudiograftError: the engine is not installed, fails, or says nothing.
    """
    import soxr

    with tempfile.TemporaryDirectory(prefix="audiograft-") as folder:
        out = Path(folder) / "clip.wav"
        done = subprocess.run(_command(text, voice, delivery, out), capture_output=True, text=True, check=False)
        if done.returncode or not out.exists():
            raise AudiograftError(f"{voice.speaker} could not speak {text!r}: {done.stderr.strip() or 'no output'}")
        waveform, rate_hz = soundfile.read(out, dtype="float32")
    if len(waveform) == 0:
        raise AudiograftError(f"{voice.speaker} said nothing for {text!r}")
    resampled = soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ) if rate_hz != SAMPLE_RATE_HZ else waveform
    return np.asarray(resampled, dtype=np.float32)
