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
from audiograft.model.lengths import encoder_frames
from audiograft.train.rows import Row, load_waveform
from audiograft.types import AudiograftError

_FRAMES_PER_BATCH = 12_000
"""Mel frames, pads included, that the tower is given at once: 120 s of audio."""
_FLOAT16_BYTES = 2


@dataclass(frozen=True)
class FeatureCache:
    """Reads tower outputs of rows by their number.

    Attributes:
        path: flat float16 file, the rows one behind the other.
        offsets: first encoder frame of each row, and the end of the last.
        d_model: width of the tower.
    """

    path: Path
    offsets: npt.NDArray[np.int64]
    d_model: int

    def states(self, index: int) -> npt.NDArray[np.float16]:
        """(encoder frames, d_model) of one row."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        values = np.fromfile(self.path, np.float16, (end - start) * self.d_model, offset=start * self.d_model * _FLOAT16_BYTES)
        return values.reshape(end - start, self.d_model)


def fingerprint(tower: torch.nn.Module, final_norm: bool, rows: Sequence[Row], precision: torch.dtype) -> str:
    """Hash of the tower's weights, of the precision it computes in, and of each row's clip (path, size, time of change) and length."""
    digest = hashlib.sha256(repr((final_norm, precision)).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for row in rows:
        stat = Path(row.sample.audio).stat()
        digest.update(json.dumps([row.sample.audio, stat.st_size, stat.st_mtime_ns, row.mel_frames]).encode())
    return digest.hexdigest()


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Row numbers in batches of similar length."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: rows[index].mel_frames):
        if batch and rows[index].mel_frames * (len(batch) + 1) > _FRAMES_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
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
    d_model: int = model.config.audio_config.d_model
    offsets = np.cumsum([0, *(encoder_frames(row.mel_frames) for row in rows)])
    cache = FeatureCache(path, offsets, d_model)
    key = fingerprint(model.audio_tower, not model.projector.pools, rows, precision)
    if record.is_file() and path.is_file() and json.loads(record.read_text(encoding="utf-8"))["fingerprint"] == key:
        return cache
    model.train(False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        # Written through a file, not a memory map: on a full disk that is an error and not a bus fault.
        with path.open("wb") as file, torch.no_grad():
            for batch in _batches(rows):
                mels = [processor.log_mel(load_waveform(rows[index]), pad_to_window=rows[index].padded) for index in batch]
                inputs = processor.pad_features(mels)
                with torch.autocast(model.device.type, precision, enabled=precision != torch.float32):
                    outputs = model.encode_audio(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
                states = outputs.to(torch.float16).cpu().numpy()
                for index, output in zip(batch, states, strict=True):
                    own = output[: encoder_frames(rows[index].mel_frames)]
                    if not np.isfinite(own).all():
                        raise AudiograftError(f"row {rows[index].sample.id}: its features overflow float16: set feature_cache to null")
                    file.seek(int(offsets[index]) * d_model * _FLOAT16_BYTES)
                    file.write(own.tobytes())
                    on_clip()
        record.write_text(json.dumps({"fingerprint": key, "rows": len(rows), "d_model": d_model}), encoding="utf-8")
    except OSError as error:
        raise AudiograftError(f"{folder}: can't be written ({error.strerror}): free space or set feature_cache to null") from error
    return cache
