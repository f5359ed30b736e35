"""Drawing clips to be judged, and keeping which were drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from audiograft.audit.run import AuditClip, AuditRun, DrawnSample, Stratum
from audiograft.data.manifest import replace_text
from audiograft.types import ConfigError, DataError

_STRATA = {"0 %": 0.0, "up to 10 %": 0.1, "up to 25 %": 0.25, "up to 50 %": 0.5, "above 50 %": float("inf")}
"""Ranges of WER by their upper ends."""


def sample_clips(run: AuditRun, n: int, seed: int, stratify: bool) -> AuditRun:
    """Draw clips without putting any back.

    The order of drawing is that of a hash of seed and id: it depends on no library's generator, and without strata a larger sample holds the
    smaller one of the same seed, so that an audit can be enlarged without losing work. Strata get clips in proportion to their sizes, by largest
    remainders: each clip has the same chance, so that shares of the sample stand for the run as they are, and only the luck of drawing too many
    easy or hard clips is taken out. A range of WER with few clips may have none in a small sample.

    Args:
        run: all of it.
        n: how many clips.
        seed: same seed, same clips.
        stratify: draw from each range of WER (0, up to 10 %, 25 %, 50 %, above) by itself.

    Returns:
        The run with the drawn clips alone, in the run's order, and `sample`.

    Raises:
        ConfigError: it has fewer clips.
    """
    if not 0 < n <= len(run.clips):
        raise ConfigError(f"--sample {n}: the run has {len(run.clips)} clips that can be judged: draw between 1 and {len(run.clips)}")
    groups = _by_wer(run.clips) if stratify else {"any": list(run.clips)}
    shares = _proportional([len(group) for group in groups.values()], n)
    drawn: list[AuditClip] = []
    for group, count in zip(groups.values(), shares, strict=True):
        drawn += sorted(group, key=lambda clip: _draw(seed, clip.prediction.id))[:count]
    strata = tuple(Stratum(name, len(group), count) for (name, group), count in zip(groups.items(), shares, strict=True))
    drawn.sort(key=lambda clip: clip.index)
    return _with_sample(run, DrawnSample(n, seed, len(run.clips), strata, tuple(clip.prediction.id for clip in drawn)))


def save_sample(run: AuditRun) -> None:
    """Keep which clips were drawn, so that a restart shows the same ones.

    Args:
        run: from `sample_clips`.

    Raises:
        DataError: the file can't be written.
    """
    if run.sample is None:
        raise ValueError("nothing was drawn")
    replace_text(run.sample_path, json.dumps({"run": run.fingerprint, **asdict(run.sample)}, indent=1, ensure_ascii=False) + "\n")


def restore_sample(run: AuditRun) -> AuditRun:
    """The run with the clips that were drawn the last time; all of it where none were.

    Raises:
        DataError: the record can't be read, or is of other predictions.
    """
    if not run.sample_path.is_file():
        return run
    mend = "draw again with --sample N, or see all clips with --all"
    try:
        record = json.loads(run.sample_path.read_text(encoding="utf-8"))
        made_of, sample = record["run"], _sample(record)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{run.sample_path}: no record of a sample ({error or type(error).__name__}): {mend}") from error
    if made_of != run.fingerprint:
        raise DataError(f"{run.sample_path}: drawn from other predictions ({made_of!r}; these are {run.fingerprint!r}): {mend}")
    if unknown := set(sample.ids) - {clip.prediction.id for clip in run.clips}:
        raise DataError(f"{run.sample_path}: clip {min(unknown)!r} is not in the run: {mend}")
    return _with_sample(run, sample)


def _sample(record: Mapping[str, Any]) -> DrawnSample:
    strata = tuple(Stratum(str(row["wer"]), int(row["clips"]), int(row["drawn"])) for row in record["strata"])
    return DrawnSample(int(record["n"]), int(record["seed"]), int(record["of"]), strata, tuple(str(id_) for id_ in record["ids"]))


def _with_sample(run: AuditRun, sample: DrawnSample) -> AuditRun:
    ids = set(sample.ids)
    drawn = [clip for clip in run.clips if clip.prediction.id in ids]
    clips = tuple(replace(clip, index=index) for index, clip in enumerate(drawn))
    return replace(run, clips=clips, missing=sum(bool(clip.prediction.audio) and not clip.path for clip in clips), sample=sample)


def _by_wer(clips: Sequence[AuditClip]) -> dict[str, list[AuditClip]]:
    groups: dict[str, list[AuditClip]] = {name: [] for name in _STRATA}
    for clip in clips:
        groups[next(name for name, upper in _STRATA.items() if clip.wer <= upper)].append(clip)
    return groups


def _proportional(sizes: Sequence[int], n: int) -> list[int]:
    """Shares of `n` in proportion to the sizes, by largest remainders; at equal remainders the first come first."""
    total = sum(sizes)
    shares = [n * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(n * sizes[i] % total))
    for i in by_remainder[: n - sum(shares)]:
        shares[i] += 1
    return shares


def _draw(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{id}".encode(errors="surrogatepass")).digest()
