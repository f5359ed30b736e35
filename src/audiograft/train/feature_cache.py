"""Outputs of the frozen tower, computed once and kept on disk as float16.

Only clips as they are get cached, never augmented ones, and the tower is frozen in both stages, so a cache stays valid until the tower, the
clips or their padding change; a fingerprint of these stands beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.train.rows import Row, load_clip
from audiograft.types import AudiograftError

_FRAMES_PER_BATCH = 6_000
"""Encoder frames (20 ms), pads included, that the tower gives at once: 120 s of audio."""
_FLOAT16_BYTES = 2


@dataclass(frozen=True)
class FeatureCache:
    """Reads tower outputs of rows by their number.

    Attributes:
        path: flat float16 file, the clips of all rows one behind the other.
        rows: first clip of each row, and the end of the last.
        offsets: first encoder frame of each clip, and the end of the last.
        width: of the tower.
    """

    path: Path
    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    width: int

    def states(self, row: int) -> list[npt.NDArray[np.float16]]:
        """(encoder frames, width) of each clip of one row."""
        return [self._clip(clip) for clip in range(int(self.rows[row]), int(self.rows[row + 1]))]

    def _clip(self, clip: int) -> npt.NDArray[np.float16]:
        start, end = int(self.offsets[clip]), int(self.offsets[clip + 1])
        values = np.fromfile(self.path, np.float16, (end - start) * self.width, offset=start * self.width * _FLOAT16_BYTES)
        return values.reshape(end - start, self.width)


def fingerprint(tower: torch.nn.Module, final_norm: bool, rows: Sequence[Row], precision: torch.dtype) -> str:
    """Hash of the tower's weights, of the precision it computes in, and of each clip (path, size, time of change) and its length."""
    digest = hashlib.sha256(repr((final_norm, precision)).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for row in rows:
        for clip, frames in zip(row.sample.clips, row.feature_frames, strict=True):
            stat = Path(clip).stat()
            digest.update(json.dumps([clip, stat.st_size, stat.st_mtime_ns, frames]).encode())
    return digest.hexdigest()


def _batches(frames: npt.NDArray[np.int64]) -> Iterator[list[int]]:
    """Clip numbers in batches of similar length; (clips,) encoder frames."""
    batch: list[int] = []
    for index in np.argsort(frames, kind="stable").tolist():
        if batch and frames[index] * (len(batch) + 1) > _FRAMES_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def build_cache(
    folder: Path,
    model: AudioGraftForConditionalGeneration,
    processor: AudioGraftProcessor,
    rows: Sequence[Row],
    precision: torch.dtype = torch.float32,
    on_clip: Callable[[], None] = lambda: None,
) -> FeatureCache:
    """Open the cache in a folder, and compute it first where it is missing or out of date.

    Args:
        folder: where it is kept.
        model: the grafted model, whose `encode_audio` is run on the device where the model is.
        processor: the model's.
        rows: in the order in which they will be asked for.
        precision: what the tower computes in; that of the run, so that the losses are those without a cache.
        on_clip: called after each clip.

    Raises:
        DataError: a clip can't be read any more.
        AudiograftError: the disk is full, or an output does not fit into float16.
    """
    path, record = folder / "states.f16", folder / "cache.json"
    width: int = model.audio_tower.width
    front_end = processor.front_end
    clips = [(row, number) for row in rows for number in range(len(row.n_samples))]
    offsets = np.cumsum([0, *(front_end.encoder_frames(row.feature_frames[number]) for row, number in clips)])
    cache = FeatureCache(path, np.cumsum([0, *(len(row.n_samples) for row in rows)]), offsets, width)
    key = fingerprint(model.audio_tower, not model.projector.pools, rows, precision)
    if record.is_file() and path.is_file() and json.loads(record.read_text(encoding="utf-8"))["fingerprint"] == key:
        return cache
    model.train(False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        # Written through a file, not a memory map: on a full disk that is an error and not a bus fault.
        with path.open("wb") as file, torch.no_grad():
            for batch in _batches(np.diff(offsets)):
                own_clips = [clips[index] for index in batch]
                inputs = processor.pad_features([processor.features(load_clip(row, number), row.padded) for row, number in own_clips])
                with torch.autocast(model.device.type, precision, enabled=precision != torch.float32):
                    outputs = model.encode_audio(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
                states = outputs.to(torch.float16).cpu().numpy()
                for index, output in zip(batch, states, strict=True):
                    own = output[: offsets[index + 1] - offsets[index]]
                    if not np.isfinite(own).all():
                        raise AudiograftError(f"row {clips[index][0].sample.id}: its features overflow float16: set feature_cache to null")
                    file.seek(int(offsets[index]) * width * _FLOAT16_BYTES)
                    file.write(own.tobytes())
                    on_clip()
        record.write_text(json.dumps({"fingerprint": key, "rows": len(rows), "width": width}), encoding="utf-8")
    except OSError as error:
        raise AudiograftError(f"{folder}: can't be written ({error.strerror}): free space or set feature_cache to null") from error
    return cache
