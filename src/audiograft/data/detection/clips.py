"""One clip of a bench, from its sound to its row of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import soundfile

from audiograft.data.clips import AUDIO_FOLDER, as_16_bit, write_wav
from audiograft.data.detection.conditions import apply_conditions
from audiograft.data.detection.grid import Slot, generator
from audiograft.data.detection.mixing import Normalisation, make_noise, mix, set_level
from audiograft.data.detection.sounds import make_sound
from audiograft.data.detection.supply import Cut
from audiograft.data.examine import unwritable
from audiograft.data.traces import Trace, make_trace
from audiograft.types import SAMPLE_RATE_HZ, DataError, Sample

Waveform = npt.NDArray[np.float32]

_SOUND_RMS = 0.05
"""Of synthetic sounds, as loud as speech is. It matters where levels stay as they are."""


@dataclass(frozen=True)
class Kind:
    """A synthetic sound that is still to be made."""

    name: str


@dataclass(frozen=True)
class Maker:
    """Makes clips; goes to every worker.

    Attributes:
        out: folder of the bench.
        work: of its recordings.
        seed: of everything that is drawn.
        normalisation: how loud clips are.
        talkers: by split, files of `work` that babble is made of.
    """

    out: Path
    work: Path
    seed: int
    normalisation: str
    talkers: Mapping[str, Sequence[str]]

    def __call__(self, job: tuple[int, Slot, Cut | Kind]) -> tuple[dict[str, Any], Trace]:
        """Make a clip and write it; all that is random comes from the seed and its slot.

        Args:
            job: number of its row, the slot, and what it is cut from or made as.

        Returns:
            Its row, and its trace for the leakage gate.

        Raises:
            DataError: it can't be written, or there is nothing to be heard in it.
        """
        number, slot, origin = job
        try:
            sound, noise = self.parts(slot, origin)
            mixed = mix(sound, noise, slot.target_snr_db)
        except DataError as error:
            raise DataError(f"{slot.id}: {error}") from error
        # Both classes have the same levels: those of a pair are drawn once.
        waveform, gain_db, level_db = set_level(mixed.waveform, cast(Normalisation, self.normalisation), generator(self.seed, "level", slot.pair))
        name = f"{AUDIO_FOLDER}/{slot.split}/{number // 1000:03d}/{slot.id}.wav"
        try:
            write_wav(waveform, self.out / name)
        except OSError as error:
            raise unwritable(self.out / name, error) from error
        row = self._row(slot, origin, name, snr_db=mixed.snr_db, gain_db=gain_db, level_db=level_db)
        sample = Sample(slot.id, (name,), speaker=row["speaker"], recording=row["recording"], label=slot.label, source=row["source"])
        return row, make_trace(sample, [as_16_bit(waveform)])

    def parts(self, slot: Slot, origin: Cut | Kind) -> tuple[Waveform, Waveform]:
        """The sound in its room and band, and the noise at any level: (n_samples,) each. The SNR is that of these two."""
        sound = self._cut(slot, origin) if isinstance(origin, Cut) else self._made(slot, origin)
        sound = apply_conditions(sound, slot, generator(self.seed, "room", slot.pair))
        talkers = self._talkers(slot.split, origin) if slot.noise == "babble" else ()
        return sound, make_noise(slot.noise, slot.n_samples, talkers, generator(self.seed, "noise", slot.id))

    def _cut(self, slot: Slot, cut: Cut) -> Waveform:
        waveform, _ = soundfile.read(self.work / cut.recording.file, dtype="float32", start=cut.start, frames=slot.n_samples)
        return np.asarray(waveform, dtype=np.float32)

    def _made(self, slot: Slot, kind: Kind) -> Waveform:
        return make_sound(kind.name, slot.n_samples, generator(self.seed, "sound", slot.id)) * np.float32(_SOUND_RMS)

    def _row(self, slot: Slot, origin: Cut | Kind, name: str, *, snr_db: float, gain_db: float, level_db: float) -> dict[str, Any]:
        return {
            "id": slot.id,
            "audio": name,
            "label": slot.label,
            "duration_s": slot.n_samples / SAMPLE_RATE_HZ,
            "duration_ms": slot.duration_ms,
            "snr_db": round(snr_db, 3) + 0.0,  # without the sign of a zero
            "target_snr_db": slot.target_snr_db,
            "noise": slot.noise,
            "band": slot.band,
            "t60_s": slot.t60_s,
            "normalisation": self.normalisation,
            "gain_db": round(gain_db, 2),
            "level_db": round(level_db, 2),
            "speaker": origin.recording.speaker if isinstance(origin, Cut) else None,
            "recording": origin.recording.name if isinstance(origin, Cut) else f"made-{self.seed}-{slot.id}",
            "kind": origin.recording.kind if isinstance(origin, Cut) else origin.name,
            "source": origin.recording.source if isinstance(origin, Cut) else "synthetic",
            "split": slot.split,
        }

    def _talkers(self, split: str, origin: Cut | Kind) -> list[Waveform]:
        """People who talk in the background: not the recording itself."""
        own = origin.recording.file if isinstance(origin, Cut) else ""
        return [_talker(self.work / file) for file in self.talkers[split] if file != own]


@cache
def _talker(file: Path) -> Waveform:
    waveform, _ = soundfile.read(file, dtype="float32")
    return np.asarray(waveform, dtype=np.float32)
