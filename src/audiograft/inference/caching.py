"""Fills a feature cache: decode in threads, run the frozen tower, write shards; here or on a Ray cluster."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiograft.audio import load_audio
from audiograft.bulk import EngineName, available_cores, spread
from audiograft.inference.feature_cache import DTYPES, FeatureCache, content_hash, entry_key, file_record
from audiograft.types import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES, AudioError, AudiograftError, ConfigError

ClipToCache = tuple[str, bool]
"""A path, and whether the clip is padded to 30 s."""
OpenModel = Callable[[], tuple[Any, Any]]
"""Gives the model, on its device, and its processor."""

_FORMAT = 1
"""Raised when the way from a file to its states changes."""
_FRAMES_PER_BATCH = 6_000
"""Encoder frames (20 ms), pads included, that the tower gives at once: 120 s of audio."""
_FRAMES_SORTED = 8 * _FRAMES_PER_BATCH
"""So much is decoded before it is sorted by length."""
_SHARD_BYTES = 1 << 28
_CLIPS_PER_TASK = 256
"""What a run that is killed loses at most."""
_TASKS_PER_SAVE = 32
_RAY_DECODERS = 4
"""Threads that decode in each worker of a cluster; on one machine there is one a core."""


@dataclass(frozen=True)
class Filled:
    """What became of clips.

    Attributes:
        n_computed: that went through the tower.
        n_known: whose states were there before, be it under another path.
        duration_s: of those that were computed.
        unusable: path and reason of those that could not be.
    """

    n_computed: int = 0
    n_known: int = 0
    duration_s: float = 0.0
    unusable: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: Filled) -> Filled:
        return Filled(
            self.n_computed + other.n_computed, self.n_known + other.n_known, self.duration_s + other.duration_s, self.unusable + other.unusable
        )


def fingerprint(model: Any, processor: Any, precision: torch.dtype) -> str:
    """Hash of all but the clip that decides about its states: the tower's weights, whether its last norm is in, the extractor's settings, and the
    precision that is computed in."""
    front_end = processor.front_end
    settings = [_FORMAT, not model.projector.pools, str(precision), repr(front_end.convolutions), front_end.extractor.to_dict()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
    for name, tensor in sorted(model.audio_tower.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        # The same numbers in another type are the same tower.
        values = tensor.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        digest.update(values.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def open_cache(folder: str | Path, model: Any, processor: Any, precision: torch.dtype, dtype: str | None = None) -> FeatureCache:
    """The cache of a model's tower in a folder, as far as it is filled.

    Args:
        folder: which may hold those of other towers too.
        model: the grafted model.
        processor: the model's.
        precision: what the tower computes in; that of the run, so that the losses are those without a cache.
        dtype: of what is kept; see `FeatureCache`.

    Raises:
        ConfigError: the model's encoder can't be cached, or what is there does not fit.
        AudiograftError: the folder can't be written.
    """
    if not getattr(model, "can_cache", True):
        raise ConfigError(f"the encoder of a stock {model.config.model_type} model can't be cached: choose a graft")
    return FeatureCache(folder, fingerprint(model, processor, precision), model.audio_tower.width, dtype)


def fill_cache(
    cache: FeatureCache,
    clips: Iterable[ClipToCache],
    open_model: OpenModel,
    precision: torch.dtype,
    *,
    engine: EngineName = "local",
    address: str | None = None,
    workers: int | None = None,
    on_gpus: bool = True,
    on_clip: Callable[[], None] = lambda: None,
) -> Filled:
    """Compute what a cache lacks. It is safe to be killed, and goes on where it was.

    Args:
        cache: of the same tower.
        clips: read lazily.
        open_model: called in each worker; for `ray` it has to go through cloudpickle.
        precision: that of the cache.
        engine: `local`, or `ray`, whose workers have to see the clips and the cache's folder under the same paths.
        address: see `audiograft.bulk.spread`.
        workers: likewise, for `ray`; here the tower runs in one.
        on_gpus: likewise.
        on_clip: called after each clip.

    Raises:
        AudiograftError: the disk is full, or states do not fit into the type that is kept.
    """
    here = engine == "local"
    # Elsewhere a callback can't be called; the clips of a task are counted when it is done.
    make_worker = partial(_Worker, cache, open_model, precision, on_clip) if here else partial(_Worker, cache, open_model, precision, None)
    known = _Counter(on_clip)
    total, files = Filled(), list[npt.NDArray[np.void]]()
    cache.sweep()
    results = spread(make_worker, _tasks(cache, clips, known), engine=engine, address=address, workers=1 if here else workers, on_gpus=on_gpus)
    try:
        for number, (done, records, n_clips) in enumerate(results, 1):
            total += done
            files += records
            if not here:
                for _ in range(n_clips):
                    on_clip()
            if number % _TASKS_PER_SAVE == 0:
                cache.add_files(files)
                files = []
    finally:
        results.close()
        cache.add_files(files)
        cache.refresh()
    return total + Filled(n_known=known.count)


@dataclass
class _Counter:
    """Counts, and hands on."""

    then: Callable[[], None]
    count: int = 0

    def __call__(self) -> None:
        self.count += 1
        self.then()


def _tasks(cache: FeatureCache, clips: Iterable[ClipToCache], on_known: Callable[[], None]) -> Iterator[list[ClipToCache]]:
    """Clips that are not known to be in the cache, each once."""
    task: list[ClipToCache] = []
    asked: set[int] = set()
    for path, padded in clips:
        number = int.from_bytes(content_hash(os.fsencode(path) + bytes([padded]))[:8], "little")
        if number in asked or cache.holds(path, padded):
            on_known()
            continue
        asked.add(number)
        task.append((path, padded))
        if len(task) == _CLIPS_PER_TASK:
            yield task
            task = []
    if task:
        yield task


@dataclass
class _Decoded:
    """A clip that was read; without features where its states are there already or it is of no use."""

    path: str
    record: npt.NDArray[np.void] | None = None
    key: bytes = b""
    features: npt.NDArray[np.float32] | None = None
    encoder_frames: int = 0
    duration_s: float = 0.0
    reason: str | None = None


class _Worker:
    """Computes tasks: lists of clips."""

    def __init__(self, cache: FeatureCache, open_model: OpenModel, precision: torch.dtype, on_clip: Callable[[], None] | None) -> None:
        self._cache = cache
        self._precision = precision
        self._on_clip = on_clip or (lambda: None)
        self._decoders = _RAY_DECODERS if on_clip is None else available_cores()
        self._model, self._processor = open_model()
        self._model.train(False)
        if on_clip is None and fingerprint(self._model, self._processor, precision) != cache.fingerprint:
            raise ConfigError("a worker of the cluster opened another model than this machine did: bring the same files to all of them")

    def __call__(self, clips: list[ClipToCache]) -> tuple[Filled, list[npt.NDArray[np.void]], int]:
        """What became of the clips, what their files hold, and their number."""
        task = _Task(self._cache)
        for item in spread(lambda: self._read, clips, workers=self._decoders):
            if not task.take(item):
                self._on_clip()
            if task.n_frames >= _FRAMES_SORTED:
                self._encode(task)
        self._encode(task)
        task.write()
        return task.filled(), task.records, len(clips)

    def _read(self, clip: ClipToCache) -> _Decoded:
        path, padded = clip
        try:
            stat = os.stat(path)
            data = Path(path).read_bytes()
        except OSError as error:
            return _Decoded(path, reason=f"{path}: can't be read ({error.strerror}): correct the path or its permissions")
        content = content_hash(data)
        item = _Decoded(path, file_record(path, stat.st_size, stat.st_mtime_ns, content), entry_key(content, padded))
        if self._cache.has(item.key):
            return item
        try:
            waveform = load_audio(path).waveform
        except AudioError as error:
            return _Decoded(path, reason=str(error))
        item.duration_s = len(waveform) / SAMPLE_RATE_HZ
        if len(waveform) > WINDOW_SAMPLES:
            return _Decoded(path, reason=f"{path}: {item.duration_s:.1f} s is longer than {WINDOW_S} s: cut it into shorter clips")
        item.features = self._processor.features(waveform, padded)
        item.encoder_frames = self._processor.front_end.encoder_frames(item.features.shape[1])
        return item

    @torch.no_grad()
    def _encode(self, task: _Task) -> None:
        """Run the tower over what a task has gathered, the shortest clips together."""
        device = next(self._model.audio_tower.parameters()).device
        for batch in _batches(task.gathered):
            inputs = self._processor.pad_features([item.features for item in batch])
            features = inputs["input_features"].to(device, self._model.audio_tower.dtype)
            with torch.autocast(device.type, self._precision, enabled=self._precision != torch.float32):
                outputs = self._model.encode_audio(features, inputs["feature_lengths"].to(device))
            states = outputs.to(DTYPES[self._cache.dtype]).cpu()
            for item, output in zip(batch, states, strict=True):
                # A copy, since the pads behind it would stay in memory otherwise.
                task.keep(item, output[: item.encoder_frames].clone())
                self._on_clip()
        task.gathered, task.n_frames = [], 0


def _batches(items: Sequence[_Decoded]) -> Iterator[list[_Decoded]]:
    """Clips of similar length, as many as the tower takes at once."""
    batch: list[_Decoded] = []
    for item in sorted(items, key=lambda item: item.encoder_frames):
        if batch and item.encoder_frames * (len(batch) + 1) > _FRAMES_PER_BATCH:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


@dataclass
class _Task:
    """What has come of the clips of a task so far."""

    cache: FeatureCache
    gathered: list[_Decoded] = field(default_factory=list)
    n_frames: int = 0
    seen: set[bytes] = field(default_factory=set)
    records: list[npt.NDArray[np.void]] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    states: list[torch.Tensor] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)
    n_known: int = 0
    n_computed: int = 0
    n_bytes: int = 0
    duration_s: float = 0.0

    def take(self, item: _Decoded) -> bool:
        """Sort a clip that was read into its place; whether it waits for the tower."""
        if item.record is not None:
            self.records.append(item.record)
        if item.reason is not None:
            self.unusable.append((item.path, item.reason))
        elif item.features is None or item.key in self.seen:
            self.n_known += 1
        else:
            self.seen.add(item.key)
            self.gathered.append(item)
            self.n_frames += item.encoder_frames
            return True
        return False

    def keep(self, item: _Decoded, states: torch.Tensor) -> None:
        """Take what the tower gave, and write a shard where there is enough for one."""
        if not bool(torch.isfinite(states).all()):
            raise AudiograftError(
                f"{item.path}: its features overflow {self.cache.dtype}: make the cache with `audiograft cache-features --dtype float32`, "
                "or set feature_cache to null"
            )
        self.keys.append(item.key)
        self.states.append(states)
        self.n_computed += 1
        self.duration_s += item.duration_s
        self.n_bytes += states.numel() * states.element_size()
        if self.n_bytes >= _SHARD_BYTES:
            self.write()

    def write(self) -> None:
        """Put what is kept into a shard."""
        if self.states:
            self.cache.write(self.keys, self.states)
        self.keys, self.states, self.n_bytes = [], [], 0

    def filled(self) -> Filled:
        return Filled(self.n_computed, self.n_known, self.duration_s, tuple(self.unusable))
