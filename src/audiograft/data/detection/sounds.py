"""Sounds that are not speech, made by arithmetic: tones, machines, weather, impacts, alarms, animals, instruments and noises.

They stand in where no corpus of real sounds is at hand, and are no substitute for one. Each kind draws all its parameters at random, so that two
sounds of a kind share what they are and little else. The kinds are divided among the splits: a detector is tested on kinds that it never heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy import signal

from audiograft.data.augment.effects import NOISE_COLOURS, coloured_noise
from audiograft.data.detection.collages import collages_of
from audiograft.data.detection.waves import (
    TOP_HZ,
    Array,
    Rng,
    band,
    coloured,
    decay,
    log_uniform,
    partials,
    phase_of,
    resonance,
    rhythm,
    seconds_of,
    slow,
    starts,
    white,
)  # fmt: skip
from audiograft.types import SAMPLE_RATE_HZ, ConfigError

Waveform = npt.NDArray[np.float32]


def make_sound(kind: str, n_samples: int, rng: Rng) -> Waveform:
    """A sound of a kind: (n_samples,) at 16 kHz, of unit RMS, never silent.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in _MAKERS:
        raise ConfigError(f"unknown kind of sound {kind!r}: use some of {', '.join(_MAKERS)}")
    sound = _MAKERS[kind](n_samples, rng)
    # Half of the sounds come through something: a wall, a small loudspeaker, a distance.
    if rng.random() < 0.5:
        sound = coloured(sound, rng)
    rms = float(np.sqrt(np.mean(sound**2)))
    if rms < 1e-6:  # a sparse kind that had nothing to say in so short a time
        return make_sound(kind, n_samples, rng)
    return np.asarray(sound / rms, dtype=np.float32)


def kinds_of(split: str) -> tuple[str, ...]:
    """Kinds that a split may draw from, in turns; no kind is in two of them. Collages take three turns, since they have the most to show."""
    return {"train": TRAINING_KINDS + 2 * tuple(_COLLAGES), "dev": DEV_KINDS, "test": HELD_OUT_KINDS}[split]


def _tone(n: int, rng: Rng) -> Array:
    frequency_hz = np.full(n, log_uniform(100, 6000, rng))
    return partials(frequency_hz, rng.uniform(0, 1) ** np.arange(int(rng.integers(1, 6))), rng)


def _chord(n: int, rng: Rng) -> Array:
    root_hz = log_uniform(80, 800, rng)
    steps = rng.choice(np.arange(25), size=int(rng.integers(2, 6)), replace=False)
    falloff = rng.uniform(0.2, 0.9)
    notes = [partials(np.full(n, root_hz * 2 ** (step / 12)), falloff ** np.arange(int(rng.integers(1, 9))), rng) for step in steps]
    return np.asarray(np.sum(notes, axis=0) * (1 + rng.uniform(0, 0.5) * slow(n, rng.uniform(1, 8), rng)))


def _melody(n: int, rng: Rng) -> Array:
    """Notes one behind the other, as a keyboard or a flute plays them."""
    note_s = log_uniform(0.08, 0.5, rng)
    root_hz, falloff = log_uniform(120, 900, rng), rng.uniform(0.15, 0.85)
    offset = int(rng.uniform(0, note_s) * SAMPLE_RATE_HZ)
    numbers = (np.arange(n) + offset) // int(note_s * SAMPLE_RATE_HZ)
    steps = rng.choice(np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]), size=int(numbers[-1]) + 1)
    frequency_hz = root_hz * 2 ** (steps[numbers] / 12)
    place_s = ((np.arange(n) + offset) % int(note_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    shape = np.exp(-place_s / rng.uniform(0.05, 0.6)) * (1 - np.exp(-place_s / rng.uniform(0.002, 0.03)))
    return np.asarray(partials(frequency_hz, falloff ** np.arange(int(rng.integers(1, 12))), rng) * np.asarray(shape + 0.02))


def _plucked(n: int, rng: Rng) -> Array:
    """A string by a comb filter (Karplus and Strong 1983)."""
    sound = np.zeros(n)
    for start in starts(n, rng.uniform(1, 6), rng):
        delay = int(SAMPLE_RATE_HZ / log_uniform(80, 700, rng))
        burst = np.zeros(n + SAMPLE_RATE_HZ // 5)
        place = max(0, start + SAMPLE_RATE_HZ // 10)
        length = min(delay, len(burst) - place)
        burst[place : place + length] = rng.standard_normal(length)
        loss = rng.uniform(0.97, 0.998) / 2
        feedback = np.zeros(delay + 2)
        feedback[0], feedback[delay], feedback[delay + 1] = 1.0, -loss, -loss
        sound += signal.lfilter([1.0], feedback, burst)[SAMPLE_RATE_HZ // 10 : SAMPLE_RATE_HZ // 10 + n]
    return sound


def _brass(n: int, rng: Rng) -> Array:
    """A held note of many harmonics that swells: horns, reeds, organs."""
    vibrato = 1 + rng.uniform(0, 0.01) * np.sin(2 * np.pi * rng.uniform(3, 8) * seconds_of(n))
    gains = np.arange(1, 31) ** -rng.uniform(0.6, 2.0) * (rng.random(30) < rng.uniform(0.5, 1))
    gains[0] = max(gains[0], 0.3)
    return partials(log_uniform(90, 700, rng) * vibrato, gains, rng) * (1 + 0.4 * slow(n, rng.uniform(0.5, 4), rng))


def _organ(n: int, rng: Rng) -> Array:
    root_hz = log_uniform(60, 400, rng)
    drawbars = np.array([0.5, 1, 1.5, 2, 3, 4, 5, 6, 8])
    steps = rng.choice(np.array([0, 3, 4, 7, 10, 12]), size=int(rng.integers(1, 4)), replace=False)
    notes = [partials(np.full(n, root_hz * 2 ** (step / 12)), rng.random(len(drawbars)), rng, drawbars) for step in steps]
    return np.asarray(np.sum(notes, axis=0) * (1 + rng.uniform(0, 0.4) * np.sin(2 * np.pi * rng.uniform(4, 7) * seconds_of(n))))


def _violin(n: int, rng: Rng) -> Array:
    """A bowed string: a sawtooth with vibrato through the resonances of a body."""
    seconds = seconds_of(n)
    vibrato = 1 + rng.uniform(0.003, 0.02) * np.sin(2 * np.pi * rng.uniform(4.5, 7.5) * seconds + rng.uniform(0, 6))
    glide = 2 ** (rng.uniform(-0.2, 0.2) * seconds)
    sound = signal.sawtooth(phase_of(log_uniform(190, 1200, rng) * vibrato * glide))
    body = sum(resonance(sound, frequency, 4) * rng.uniform(0.5, 2) for frequency in rng.uniform((250, 400, 1000, 2200), (320, 650, 1800, 3500)))
    return np.asarray(np.asarray(body) * (1 + 0.3 * slow(n, 5, rng)) + rng.uniform(0, 0.05) * white(n, rng))


def _hum(n: int, rng: Rng) -> Array:
    mains_hz = float(rng.choice([50.0, 60.0, 100.0, 120.0]))
    gains = rng.random(24) * np.arange(1, 25) ** -rng.uniform(0.2, 1.5)
    return np.asarray(partials(np.full(n, mains_hz), gains, rng) + rng.uniform(0, 0.3) * white(n, rng) * gains.max())


def _engine(n: int, rng: Rng) -> Array:
    """Firing at a rate that wanders, its harmonics shaped by an exhaust, noise breathing with it."""
    revs_hz = (
        log_uniform(20, 180, rng) * (1 + rng.uniform(0.005, 0.08) * slow(n, rng.uniform(1, 6), rng)) * 2 ** (rng.uniform(-0.5, 0.5) * seconds_of(n))
    )
    revs_hz = np.maximum(revs_hz, 10.0)
    gains = rng.random(40) * np.arange(1, 41) ** -rng.uniform(0.3, 1.4)
    sound = partials(revs_hz, gains, rng)
    noise = white(n, rng) * (1 + np.sin(phase_of(revs_hz)))
    return resonance(sound + rng.uniform(0, 1.0) * noise, log_uniform(80, 2500, rng), rng.uniform(0.5, 3)) + 0.3 * sound


def _fan(n: int, rng: Rng) -> Array:
    noise = coloured_noise(n, rng.uniform(0.3, 1.8), rng)
    blades = 1 + rng.uniform(0.05, 0.6) * np.sin(phase_of(np.full(n, log_uniform(8, 120, rng))))
    return noise * blades + rng.uniform(0, 0.5) * partials(np.full(n, log_uniform(60, 900, rng)), rng.random(4), rng)


def _drill(n: int, rng: Rng) -> Array:
    """A whining motor that labours."""
    whine_hz = log_uniform(150, 2500, rng) * (1 + 0.1 * slow(n, rng.uniform(2, 12), rng))
    buzz = signal.sawtooth(phase_of(np.maximum(whine_hz, 40.0)))
    return np.asarray(buzz * (1 + 0.3 * slow(n, 20, rng)) + rng.uniform(0.1, 1.0) * white(n, rng))


def _saw(n: int, rng: Rng) -> Array:
    """Strokes of rasping noise, back and forth."""
    rate_hz = rng.uniform(1.5, 5)
    stroke = np.abs(np.sin(np.pi * rate_hz * seconds_of(n) + rng.uniform(0, np.pi))) ** rng.uniform(0.5, 2)
    teeth = 1 + 0.8 * np.sign(np.sin(phase_of(log_uniform(60, 300, rng) * (0.3 + stroke))))
    return np.asarray(band(white(n, rng), log_uniform(400, 1500, rng), log_uniform(3000, 7500, rng)) * stroke * teeth)


def _helicopter(n: int, rng: Rng) -> Array:
    chop = (0.5 + 0.5 * np.cos(2 * np.pi * rng.uniform(9, 26) * seconds_of(n) + rng.uniform(0, 6))) ** rng.uniform(2, 8)
    return np.asarray(
        coloured_noise(n, rng.uniform(0.8, 2), rng) * (0.1 + chop) + 0.2 * partials(np.full(n, log_uniform(200, 900, rng)), rng.random(5), rng)
    )


def _rain(n: int, rng: Rng) -> Array:
    drops = white(n, rng) * (rng.random(n) < log_uniform(0.002, 0.3, rng))
    return band(drops, log_uniform(200, 1500, rng), log_uniform(3000, 7600, rng)) + rng.uniform(0, 0.1) * white(n, rng)


def _wind(n: int, rng: Rng) -> Array:
    gusts = np.exp(rng.uniform(0.2, 0.9) * slow(n, rng.uniform(0.5, 5), rng))
    low_hz = log_uniform(60, 500, rng)
    return np.asarray(band(white(n, rng), low_hz, low_hz * rng.uniform(2, 8), 1) * gusts)


def _thunder(n: int, rng: Rng) -> Array:
    rumble = coloured_noise(n, rng.uniform(1.6, 2.6), rng) * np.exp(0.8 * slow(n, rng.uniform(2, 10), rng))
    crack = sum(decay(n, start, rng.uniform(0.02, 0.2)) for start in starts(n, 2, rng)) * white(n, rng)
    return np.asarray(rumble + rng.uniform(0, 0.6) * crack)


def _crackle(n: int, rng: Rng) -> Array:
    sound = 0.02 * coloured_noise(n, rng.uniform(0, 1.5), rng).astype(np.float64)
    for start in starts(n, log_uniform(10, 80, rng), rng):
        sound += rng.exponential() * decay(n, start, rng.uniform(0.0005, 0.006), 0.0002) * white(n, rng)
    return sound


def _drip(n: int, rng: Rng) -> Array:
    """Bubbles: tones that rise as they die away (Minnaert 1933)."""
    sound = 1e-3 * white(n, rng)
    for start in starts(n, log_uniform(3, 25, rng), rng):
        seconds = np.maximum((np.arange(n) - start) / SAMPLE_RATE_HZ, 0)
        rise = log_uniform(500, 3500, rng) * (1 + rng.uniform(0, 4) * seconds)
        sound += rng.exponential() * decay(n, start, rng.uniform(0.005, 0.05)) * np.sin(phase_of(np.minimum(rise, TOP_HZ)))
    return sound


def _impact(n: int, rng: Rng) -> Array:
    """Something hard is hit: modes that die away at rates of their own, behind a click."""
    sound = np.zeros(n)
    modes_hz = np.exp(rng.uniform(np.log(80), np.log(6000), size=int(rng.integers(3, 12))))
    for start in starts(n, rng.uniform(1, 8), rng):
        for frequency_hz in modes_hz:
            sound += rng.random() * decay(n, start, log_uniform(0.005, 0.3, rng)) * np.sin(2 * np.pi * frequency_hz * seconds_of(n))
        sound += rng.uniform(0, 2) * decay(n, start, 0.004, 0.0003) * white(n, rng)
    return sound


def _bell(n: int, rng: Rng) -> Array:
    ratios = np.array([0.5, 1, 1.19, 1.56, 2, 2.51, 2.66, 3.01, 4.1]) * (1 + 0.02 * rng.standard_normal(9))
    strike = sum(decay(n, start, rng.uniform(0.1, 1.2)) for start in starts(n, 2, rng))
    return np.asarray(strike * partials(np.full(n, log_uniform(150, 1500, rng)), rng.random(9), rng, ratios))


def _glass(n: int, rng: Rng) -> Array:
    """A crash, then shards that ring and fall."""
    first = int(rng.integers(0, max(1, n // 3)))
    sound = 2 * decay(n, first, rng.uniform(0.01, 0.06), 0.0003) * white(n, rng)
    for start in [first, *(first + int(rng.exponential(0.12) * SAMPLE_RATE_HZ) for _ in range(int(rng.integers(5, 25))))]:
        sound += rng.random() * decay(n, start, log_uniform(0.01, 0.12, rng)) * np.sin(2 * np.pi * rng.uniform(2000, 7500) * seconds_of(n))
    return sound


def _drum(n: int, rng: Rng) -> Array:
    sound = 1e-3 * white(n, rng)
    for start in starts(n, rng.uniform(2, 9), rng):
        seconds = np.maximum((np.arange(n) - start) / SAMPLE_RATE_HZ, 0)
        skin_hz = log_uniform(50, 250, rng) * (1 + rng.uniform(0.2, 2) * np.exp(-seconds / 0.03))
        sound += decay(n, start, rng.uniform(0.04, 0.25)) * np.sin(phase_of(skin_hz))
        sound += rng.uniform(0, 1.2) * decay(n, start, rng.uniform(0.01, 0.15)) * band(white(n, rng), 500, 7000)
    return sound


def _keyboard(n: int, rng: Rng) -> Array:
    sound = 1e-3 * white(n, rng)
    for start in starts(n, rng.uniform(4, 15), rng):
        for echo in (start, start + int(rng.uniform(0.02, 0.1) * SAMPLE_RATE_HZ)):
            click = decay(n, echo, rng.uniform(0.001, 0.01), 0.0003) * white(n, rng)
            sound += rng.random() * resonance(click, log_uniform(800, 5500, rng), rng.uniform(1, 8))
    return sound


def _footsteps(n: int, rng: Rng) -> Array:
    sound = 1e-3 * white(n, rng)
    for start in starts(n, rng.uniform(1.5, 4), rng):
        thud = decay(n, start, rng.uniform(0.01, 0.06), 0.003) * band(white(n, rng), 50, log_uniform(200, 900, rng))
        gravel = decay(n, start, rng.uniform(0.03, 0.15), 0.01) * band(white(n, rng), 800, 6000)
        sound += thud + rng.uniform(0, 0.3) * gravel
    return sound


def _alarm(n: int, rng: Rng) -> Array:
    """Beeps of one or two pitches."""
    first_hz = log_uniform(400, 4000, rng)
    second_hz = first_hz * (rng.uniform(0.6, 1.6) if rng.random() < 0.5 else 1)
    period_s = rng.uniform(0.08, 0.8)
    frequency_hz = np.where((seconds_of(n) / (2 * period_s) + rng.random()) % 1 < 0.5, first_hz, second_hz)
    return partials(frequency_hz, rng.uniform(0.1, 0.9) ** np.arange(6), rng) * rhythm(n, period_s, rng.uniform(0.4, 1), rng)


def _siren(n: int, rng: Rng) -> Array:
    sweep = np.sin(2 * np.pi * rng.uniform(0.2, 5) * seconds_of(n) + rng.uniform(0, 6))
    centre_hz = log_uniform(500, 1800, rng)
    return partials(centre_hz * 2 ** (rng.uniform(0.2, 0.9) * sweep), rng.uniform(0.1, 0.8) ** np.arange(8), rng)


def _ring(n: int, rng: Rng) -> Array:
    """A telephone: two tones that warble."""
    low_hz = log_uniform(400, 1500, rng)
    tones = partials(np.full(n, low_hz), np.array([1, 0.3]), rng) + partials(np.full(n, low_hz * rng.uniform(1.1, 1.5)), np.array([1, 0.3]), rng)
    return tones * rhythm(n, 1 / rng.uniform(12, 30), 0.5, rng) * rhythm(n, rng.uniform(0.8, 3), 0.8, rng)


def _horn(n: int, rng: Rng) -> Array:
    base_hz = log_uniform(200, 550, rng)
    gains = np.arange(1, 16) ** -rng.uniform(0.2, 1.0)
    notes = [partials(np.full(n, base_hz * ratio), gains, rng) for ratio in (1, rng.uniform(1.15, 1.35))]
    return np.asarray(np.sum(notes, axis=0) * rhythm(n, rng.uniform(0.3, 1.5), 0.8, rng, 0.02))


def _bird(n: int, rng: Rng) -> Array:
    """Whistles that bend quickly."""
    sound = 1e-3 * white(n, rng)
    for start in starts(n, rng.uniform(3, 12), rng):
        length = int(rng.uniform(0.03, 0.2) * SAMPLE_RATE_HZ)
        place = np.clip((np.arange(n) - start) / length, 0, 1)
        bend = rng.uniform(-0.6, 0.6) * place + rng.uniform(0, 0.15) * np.sin(2 * np.pi * rng.uniform(1, 8) * place)
        whistle = partials(np.minimum(log_uniform(1500, 5500, rng) * 2**bend, 7000.0), np.array([1, rng.uniform(0, 0.3)]), rng)
        sound += rng.random() * whistle * np.sin(np.pi * place) ** rng.uniform(0.5, 2)
    return sound


def _crickets(n: int, rng: Rng) -> Array:
    carrier = partials(np.full(n, rng.uniform(3000, 6500)), np.array([1.0, rng.uniform(0, 0.2)]), rng)
    pulses = rhythm(n, 1 / rng.uniform(15, 60), rng.uniform(0.3, 0.7), rng)
    return carrier * pulses * rhythm(n, rng.uniform(0.2, 1.0), rng.uniform(0.4, 1), rng, 0.02)


def _frog(n: int, rng: Rng) -> Array:
    """Croaks: a quick train of pulses through one resonance."""
    pulses = (np.diff(np.floor(phase_of(np.full(n, rng.uniform(20, 90))) / (2 * np.pi)), prepend=0) > 0).astype(np.float64)
    croak = resonance(pulses, log_uniform(400, 2500, rng), rng.uniform(3, 12))
    return croak * rhythm(n, rng.uniform(0.2, 1), rng.uniform(0.3, 0.9), rng, 0.02) + 1e-4 * white(n, rng)


def _static(n: int, rng: Rng) -> Array:
    """A radio between stations: noise that comes and goes, whistles that drift."""
    noise = band(white(n, rng), log_uniform(100, 600, rng), log_uniform(2500, 7500, rng)) * np.exp(0.5 * slow(n, rng.uniform(2, 30), rng))
    drift_hz = np.clip(log_uniform(300, 5000, rng) * 2 ** (0.5 * slow(n, 2, rng)), 50, TOP_HZ)
    return np.asarray(noise + rng.uniform(0, 0.6) * np.sin(phase_of(drift_hz)))


def _bursts(n: int, rng: Rng) -> Array:
    """Noise that comes and goes at the rate of syllables, without a voice in it."""
    rate_hz = rng.uniform(2, 9)
    envelope = np.maximum(np.sin(2 * np.pi * rate_hz * seconds_of(n) + rng.uniform(0, 6)) + 0.5 * slow(n, rate_hz, rng), 0.02) ** rng.uniform(0.7, 2)
    low_hz = log_uniform(80, 2500, rng)
    return np.asarray(band(white(n, rng), low_hz, low_hz * rng.uniform(1.5, 20)) * envelope)


def _buzz(n: int, rng: Rng) -> Array:
    """Harmonics that fall or rise in pitch like a voice's, but through one filter that stays."""
    frequency_hz = log_uniform(70, 450, rng) * 2 ** (rng.uniform(-0.8, 0.8) * seconds_of(n) + rng.uniform(0, 0.15) * slow(n, 4, rng))
    sound = signal.sawtooth(phase_of(frequency_hz)) if rng.random() < 0.5 else signal.square(phase_of(frequency_hz), rng.uniform(0.1, 0.5))
    for _ in range(int(rng.integers(1, 4))):
        sound = 0.3 * sound + resonance(sound, log_uniform(200, 5000, rng), rng.uniform(0.5, 4))
    gate = rhythm(n, rng.uniform(0.1, 0.8), rng.uniform(0.5, 1), rng, 0.02) if rng.random() < 0.5 else 1.0
    return np.asarray(sound * gate)


def _fm(n: int, rng: Rng) -> Array:
    """Frequency modulation (Chowning 1973): metal, wood, toys and games."""
    carrier_hz, ratio = log_uniform(80, 2000, rng), rng.choice(np.array([0.5, 1.0, 1.41, 2.0, 3.5, rng.uniform(0.3, 5)]))
    index = rng.uniform(0.5, 8) * np.exp(-seconds_of(n) / rng.uniform(0.1, 2))
    sound = np.sin(phase_of(np.full(n, carrier_hz)) + index * np.sin(phase_of(np.full(n, carrier_hz * ratio))))
    return np.asarray(sound * (rhythm(n, rng.uniform(0.1, 0.6), 0.7, rng, 0.01) if rng.random() < 0.5 else 1.0))


def _silence(n: int, rng: Rng) -> Array:
    """A quiet room: what a microphone hears where nothing is to be heard."""
    return coloured_noise(n, rng.uniform(-0.5, 2.0), rng) + rng.uniform(0, 0.2) * partials(np.full(n, rng.choice([50.0, 60.0])), rng.random(3), rng)


def _noise(colour: str) -> Callable[[int, Rng], Array]:
    return lambda n, rng: coloured_noise(n, NOISE_COLOURS[colour], rng).astype(np.float64)


_SIMPLE: Mapping[str, Callable[[int, Rng], Array]] = {
    "tone": _tone, "chord": _chord, "melody": _melody, "plucked": _plucked, "brass": _brass, "fm": _fm, "hum": _hum, "engine": _engine,
    "fan": _fan, "drill": _drill, "rain": _rain, "wind": _wind, "crackle": _crackle, "impact": _impact, "bell": _bell, "drum": _drum,
    "keyboard": _keyboard, "alarm": _alarm, "siren": _siren, "bursts": _bursts, "buzz": _buzz, "silence": _silence,
    **{f"{colour}-noise": _noise(colour) for colour in NOISE_COLOURS},
}  # fmt: skip
_COLLAGES = collages_of(_SIMPLE)
_TRAINING = {**_SIMPLE, **_COLLAGES}
_DEV: Mapping[str, Callable[[int, Rng], Array]] = {
    "organ": _organ, "drip": _drip, "static": _static, "footsteps": _footsteps, "frog": _frog, "horn": _horn,
}  # fmt: skip
_HELD_OUT: Mapping[str, Callable[[int, Rng], Array]] = {
    "bird": _bird, "crickets": _crickets, "glass": _glass, "helicopter": _helicopter, "ring": _ring, "saw": _saw, "thunder": _thunder,
    "violin": _violin,
}  # fmt: skip
_MAKERS = {**_TRAINING, **_DEV, **_HELD_OUT}

TRAINING_KINDS = tuple(_TRAINING)
DEV_KINDS = tuple(_DEV)
HELD_OUT_KINDS = tuple(_HELD_OUT)
"""For the test split alone: chosen before anything was trained, and not looked at while it was."""
KINDS = tuple(_MAKERS)
