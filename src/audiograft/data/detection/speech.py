"""Where speech can be cut from, and synthetic recordings of it.

A clip that is labelled SPEECH has to hold some: a cut out of the middle of a pause would teach a detector the opposite.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from audiograft.data.augment.activity import active_samples
from audiograft.data.synthetic.grammar import sentences
from audiograft.data.synthetic.voices import DETECTOR_DEV_VARIANTS, Delivery, Voice, draw_delivery, draw_voice
from audiograft.types import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]

MIN_SPEECH_SHARE = 0.8
"""Of a clip, that has to be speech."""
_FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
"""20 ms: a period of the lowest voice."""
_MARGIN_DB = 15.9
"""As in ITU-T P.56: what is further below the level of the speech counts as a pause."""
_ROUNDING = 1e-9
_BRIDGED_FRAMES = 4
"""Pauses of 80 ms and less are the closures of p, t and k, and belong to the speech around them."""
_DEV_VOICES = DETECTOR_DEV_VARIANTS | {"awb"}
"""Voices of flite and variants of espeak-ng, in any accent, that dev splits have to themselves, and training splits never have."""


def speech_frames(waveform: Waveform) -> npt.NDArray[np.bool_]:
    """Which frames of 20 ms hold speech.

    The level of the speech is that of ITU-T P.56; its 200 ms of hangover are not, since a clip of 200 ms might lie in them.

    Args:
        waveform: (n_samples,) of a recording at 16 kHz.

    Returns:
        (n_samples // 320,).
    """
    active = active_samples(waveform)
    n_frames = len(waveform) // _FRAME_SAMPLES
    if not active.any() or not n_frames:
        return np.zeros(n_frames, dtype=np.bool_)
    power = np.square(waveform, dtype=np.float64)
    frames = power[: n_frames * _FRAME_SAMPLES].reshape(n_frames, _FRAME_SAMPLES).mean(axis=1)
    speech: npt.NDArray[np.bool_] = frames >= np.mean(power[active]) * 10 ** (-_MARGIN_DB / 10)
    for is_speech, run in itertools.groupby(range(n_frames), key=lambda frame: bool(speech[frame])):
        gap = list(run)
        if not is_speech and len(gap) <= _BRIDGED_FRAMES and gap[0] > 0 and gap[-1] < n_frames - 1:
            speech[gap] = True
    return speech


def speech_weight(waveform: Waveform) -> tuple[npt.NDArray[np.float64], float]:
    """What `find_cuts` wants of speech: a clip has to be speech for `MIN_SPEECH_SHARE` of its length.

    Args:
        waveform: (n_samples,) at 16 kHz.

    Returns:
        Whether each sample is in a frame of speech (n_frames * 320,), and the mean that a clip needs.
    """
    return np.repeat(speech_frames(waveform), _FRAME_SAMPLES).astype(np.float64), MIN_SPEECH_SHARE


def sound_weight(waveform: Waveform) -> tuple[npt.NDArray[np.float64], float]:
    """What `find_cuts` wants of other sounds: a clip is no more than 10 dB below its recording, so that something is heard in it.

    Args:
        waveform: (n_samples,) at 16 kHz.

    Returns:
        The power of each sample, and the mean that a clip needs.
    """
    power = np.square(waveform, dtype=np.float64)
    return power, float(0.1 * power.mean())


def find_cuts(weight: npt.NDArray[np.float64], least: float, n_samples: int, tries: int, rng: np.random.Generator) -> list[int]:
    """Where clips of one length can be cut.

    Args:
        weight: (n_recording_samples,) of each sample.
        least: mean weight that a clip needs.
        n_samples: of the clips.
        tries: places that are drawn and looked at.
        rng: draws them.

    Returns:
        First samples, in the order in which they were drawn; none where no place was found.
    """
    room = len(weight) - n_samples
    if room < 0:
        return []
    sums = np.concatenate([[0.0], np.cumsum(weight)])
    starts = rng.integers(0, room + 1, size=tries)
    found = sums[starts + n_samples] - sums[starts]
    return [int(start) for start in starts[(found >= least * n_samples * (1 - _ROUNDING)) & (found > 0)]]


def utterances(split: str, seed: int) -> Iterator[tuple[str, Voice, Delivery]]:
    """Endless sentences of a split with the voices that speak them: held-out voices in test, in train and dev training voices that they don't share.

    Sentences are divided by the grammar, so that none is in two splits.
    """
    for row, sentence in enumerate(sentences(split, seed)):
        rng = random.Random(f"detection/{split}/{seed}/{row}")
        voice = draw_voice("held-out" if split == "test" else "training", row, rng)
        while split != "test" and is_dev_voice(voice) != (split == "dev"):
            voice = draw_voice("training", row, rng)
        yield sentence.text, voice, draw_delivery(rng)


def is_dev_voice(voice: Voice) -> bool:
    """Whether a training voice is one of those that dev splits have to themselves."""
    return (voice.name.partition("+")[2] or voice.name) in _DEV_VOICES
