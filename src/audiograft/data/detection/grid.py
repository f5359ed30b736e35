"""The design of a bench: which clips it is to have. Duration x signal-to-noise ratio x class, and the conditions of each clip."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeVar, get_args

import numpy as np

from audiograft.data.detection.mixing import NOISES, Normalisation
from audiograft.types import SAMPLE_RATE_HZ, ConfigError

_Value = TypeVar("_Value")

LABELS = ("SPEECH", "NONSPEECH")
SPLITS = ("train", "dev", "test")
Band = Literal["none", "telephone", "lowpass", "highpass"]
MIN_DURATION_MS = 20
"""One frame of a detector; in less there is nothing to decide."""
_MAX_DURATION_MS = 30_000
_MAX_T60_S = 3.0


@dataclass(frozen=True)
class Design:
    """What a bench is to hold.

    Attributes:
        durations_ms: of clips.
        snrs_db: signal-to-noise ratios, over the whole clip.
        clips_per_cell: clips of one duration, ratio and class (and condition, where these are crossed), in all splits together.
        noises: some of `NOISES`.
        bands: what clips go through before noise is added: some of `Band`.
        t60s_s: reverberation times, before noise is added; 0 is none.
        cross: every noise, band and reverberation has a cell of its own; else they are drawn for each clip.
        normalisation: how loud clips are, see `audiograft.data.detection.mixing.set_level`.
        splits: shares by name, as `80/10/10` or `train=0.8,dev=0.1,test=0.1`.
        seed: of everything that is drawn.

    Raises:
        ConfigError: a value that no bench can have; names the option.
    """

    durations_ms: tuple[int, ...] = (200, 400, 600, 800, 1000)
    snrs_db: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0, 20.0)
    clips_per_cell: int = 20
    noises: tuple[str, ...] = ("white", "pink", "brown")
    bands: tuple[str, ...] = ("none",)
    t60s_s: tuple[float, ...] = (0.0,)
    cross: bool = False
    normalisation: str = "rms-random"
    splits: str = "80/10/10"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("durations_ms", "snrs_db", "noises", "bands", "t60s_s"):
            values: tuple[object, ...] = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{_flag(name)} {_shown(values)}: give {'each value once' if values else 'at least one value'}")
        for name, values, known in (
            ("noises", self.noises, NOISES),
            ("bands", self.bands, get_args(Band)),
            ("normalisation", (self.normalisation,), get_args(Normalisation)),
        ):
            if unknown := [value for value in values if value not in known]:
                raise ConfigError(f"{_flag(name)} {unknown[0]}: choose among {', '.join(known)}")
        for name, numbers, least, most in (
            ("durations_ms", self.durations_ms, MIN_DURATION_MS, _MAX_DURATION_MS),
            ("snrs_db", self.snrs_db, -60, 100),
            ("t60s_s", self.t60s_s, 0, _MAX_T60_S),
            ("clips_per_cell", (self.clips_per_cell,), 1, math.inf),
        ):
            if wrong := [number for number in numbers if not least <= number <= most]:
                raise ConfigError(f"{_flag(name)} {wrong[0]:g}: give {least:g} {'or more' if most == math.inf else f'to {most:g}'}")
        if empty := [name for name, count in self.counts.items() if not count]:
            least = math.ceil(1 / min(self.shares.values()))
            raise ConfigError(f"--clips-per-cell {self.clips_per_cell}: none is left for {empty[0]}: give {least} or more, or other --splits")

    @property
    def shares(self) -> dict[str, float]:
        """Of the splits that there are, together 1."""
        return _parse_splits(self.splits)

    @property
    def counts(self) -> dict[str, int]:
        """Clips a cell, by split; together `clips_per_cell`."""
        counts: dict[str, int] = {}
        before = Fraction(0)
        for name, share in self.shares.items():
            behind = before + Fraction(share).limit_denominator(10_000)
            counts[name] = round(self.clips_per_cell * behind) - round(self.clips_per_cell * before)
            before = behind
        return counts


@dataclass(frozen=True)
class Slot:
    """A clip that the design asks for.

    Attributes:
        split: train, dev or test.
        label: of `LABELS`.
        duration_ms: of the clip.
        target_snr_db: wanted.
        noise: of `NOISES`.
        band: of `Band`.
        t60_s: reverberation time; 0 for none.
        number: within its cell and split, from 0.
        crossed: whether the conditions are part of the cell.
    """

    split: str
    label: str
    duration_ms: int
    target_snr_db: float
    noise: str
    band: str
    t60_s: float
    number: int
    crossed: bool = False

    @property
    def n_samples(self) -> int:
        """At 16 kHz."""
        return samples_of(self.duration_ms)

    @property
    def cell(self) -> str:
        """For people: split, class, duration and ratio, and the conditions where they are crossed."""
        conditions = f", {self.noise}, {self.band}, T60 {self.t60_s:g} s" if self.crossed else ""
        return f"{self.split} {self.label} {self.duration_ms} ms {self.target_snr_db:g} dB{conditions}"

    @property
    def pair(self) -> str:
        """What it has in common with the slot of the other class in the same place of the design."""
        conditions = f"-{self.noise}-{self.band}-{self.t60_s:g}s" if self.crossed else ""
        return f"{self.split}-{self.duration_ms}ms-{self.target_snr_db:g}db{conditions}-{self.number:05d}"

    @property
    def id(self) -> str:
        """Of its row."""
        return f"{self.label.lower()}-{self.pair}"


def make_slots(design: Design) -> list[Slot]:
    """Every clip of a bench, split by split; within each the first few rows hold every cell of the grid, and the classes take turns.

    Conditions are drawn for both classes together: what noise or room a clip has tells nothing about its class.
    """
    return [slot for split, count in design.counts.items() for slot in _split_slots(design, split, count)]


def _split_slots(design: Design, split: str, count: int) -> Iterator[Slot]:
    for number in range(count):
        for duration_ms, snr_db in itertools.product(design.durations_ms, design.snrs_db):
            plain = Slot(split, LABELS[0], duration_ms, snr_db, "", "", 0.0, number, design.cross)
            for noise, band, t60_s in _conditions(design, plain):
                for label in LABELS:
                    yield replace(plain, label=label, noise=noise, band=band, t60_s=t60_s)


def _conditions(design: Design, slot: Slot) -> Iterator[tuple[str, str, float]]:
    """Of a place in the grid: all there are, or those that are drawn for it."""
    if design.cross:
        yield from itertools.product(design.noises, design.bands, design.t60s_s)
        return
    rng = generator(design.seed, "conditions", slot.pair)
    yield _drawn(design.noises, rng), _drawn(design.bands, rng), _drawn(design.t60s_s, rng)


def _drawn(values: Sequence[_Value], rng: np.random.Generator) -> _Value:
    return values[int(rng.integers(len(values)))]


def samples_of(duration_ms: int) -> int:
    """How many samples at 16 kHz a duration has."""
    return duration_ms * SAMPLE_RATE_HZ // 1000


def generator(*parts: object) -> np.random.Generator:
    """Random numbers that depend on these parts alone, so that clips don't depend on the order in which they are made."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(errors="backslashreplace"), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest))


def _parse_splits(text: str) -> dict[str, float]:
    words = [word.strip() for word in text.replace("/", ",").split(",") if word.strip()]
    mend = f"give shares as 80/10/10 of {', '.join(SPLITS)}, or by name, as train=0.8,test=0.2"
    named = [word.partition("=") for word in words] if "=" in text else [(name, "=", word) for name, word in zip(SPLITS, words, strict=False)]
    try:
        numbers = {name.strip(): float(share) for name, _, share in named}
    except ValueError:
        raise ConfigError(f"--splits {text}: {mend}") from None
    total = math.fsum(numbers.values())
    wrong = not numbers.keys() <= set(SPLITS) or len(words) not in (len(numbers), 3) or len(words) != len(named)
    if wrong or min(numbers.values(), default=-1) < 0 or not 0 < total < math.inf:
        raise ConfigError(f"--splits {text}: {mend}")
    if not min(abs(total - 1), abs(total - 100)) < 1e-6:
        raise ConfigError(f"--splits {text}: the shares come to {total:g}: make them 1 or 100 together")
    return {name: numbers[name] / total for name in SPLITS if numbers.get(name)}


def _flag(name: str) -> str:
    return {"t60s_s": "--t60-s"}.get(name, f"--{name.replace('_', '-')}")


def _shown(values: Sequence[object]) -> str:
    return ",".join(map(str, values))
