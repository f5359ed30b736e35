"""A bench of speech detection: clips of speech and of other sounds in noise, in splits that share neither speaker nor recording.

    prepare_detection(Path("bench"), Design(clips_per_cell=1000), speech=["synthetic"], negatives=["synthetic"])

The same arguments give the same bytes on any number of workers, and the same call goes on where an earlier one was interrupted.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from audiograft.bulk import available_cores
from audiograft.data.card import CARD_HTML, CARD_JSON, make_card, render_card
from audiograft.data.detection.checks import check_cues, compare_splits, describe
from audiograft.data.detection.clips import Kind, Maker
from audiograft.data.detection.grid import LABELS, Design, Slot, generator, make_slots
from audiograft.data.detection.journal import Journal, divide_rows, write_rejections
from audiograft.data.detection.mixing import TALKERS
from audiograft.data.detection.origins import SYNTHETIC, Origin, divide, list_entries, parse_origins
from audiograft.data.detection.sounds import kinds_of
from audiograft.data.detection.supply import Cut, Demand, Surveyor, refuse_unfilled
from audiograft.data.examine import unwritable
from audiograft.data.folder import Folder
from audiograft.data.ledger import in_progress
from audiograft.data.manifest import replace_text
from audiograft.data.options import plain
from audiograft.data.synthetic.voices import require_engines
from audiograft.types import ConfigError, DataError, Rejection

WORK_NAME = "recordings.part"
"""Folder of the recordings that clips are cut from; it is removed when the bench is whole."""
_BLOCK_ROWS = 256
_MAX_TALKERS = 40
_GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, without their whole part, fill the interval from 0 to 1 evenly at any moment."""

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
Job = Cut | Kind


@dataclass(frozen=True)
class BenchSummary:
    """What a preparation came to.

    Attributes:
        manifests: by split.
        rows: clips by split.
        rejected: recordings that could not be used, by kind.
        card: the content of `card.json`; what the bench holds is under `detection`.
    """

    manifests: dict[str, Path]
    rows: dict[str, int]
    rejected: dict[str, int]
    card: dict[str, Any]


def prepare_detection(
    out: Path,
    design: Design,
    *,
    speech: Sequence[str] = (SYNTHETIC,),
    negatives: Sequence[str] = (SYNTHETIC,),
    clips_per_recording: int = 4,
    allow_leaks: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda what, total: nullcontext(lambda: None),
) -> BenchSummary:
    """Make a bench: `train.jsonl`, `dev.jsonl` and `test.jsonl`, clips as 16-bit WAV below `audio/`, and a data card.

    Args:
        out: the folder, which need not exist.
        design: what it is to hold.
        speech: where speech comes from, see `parse_origins`.
        negatives: where other sounds come from.
        clips_per_recording: cut from one sentence or one row of a source, at most.
        allow_leaks: keep a bench whose durations or levels give the class away.
        workers: processes, or threads that decode; one a core by default. Has no influence on the result.
        overwrite: clear what an earlier run left in the folder.
        progress: called with what is done and how often; gives what to call each time.

    Raises:
        ConfigError: options that no bench can have.
        DataError: a source can't be read, the sources can't fill the grid (names the cells), splits share a speaker or a recording, or the folder
            holds something else.
        LeakError: the class is told by duration or level alone.
    """
    origins = {"SPEECH": parse_origins(speech, "SPEECH"), "NONSPEECH": parse_origins(negatives, "NONSPEECH")}
    _check(out, design, origins, clips_per_recording)
    made = plain(design) | {"source": "detection", "speech": list(speech), "negatives": list(negatives), "clips_per_recording": clips_per_recording}
    folder, work = Folder(out, design.counts), out / WORK_NAME
    cores = workers or available_cores()
    with folder.opened(made, design, overwrite):
        try:
            work.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(work, error) from error
        slots = make_slots(design)
        jobs, talkers, rejections = _plan(slots, design, origins, clips_per_recording, work, cores, progress)
        write_rejections(in_progress(folder.rejected), rejections)
        _make(folder, Maker(out, work, design.seed, design.normalisation, talkers), slots, jobs, cores, progress)
        rows = divide_rows(folder)
        leakage = compare_splits(folder)
        bench = describe(design, rows) | {"cues": check_cues(out, rows, allow_leaks)}
        card = _write_card(folder, bench, leakage, made)
        folder.publish(made)
        shutil.rmtree(work, ignore_errors=True)
    counts = {name: len(part) for name, part in rows.items()}
    return BenchSummary(folder.manifests, counts, dict(Counter(rejection.kind for rejection in rejections).most_common()), card)


def _check(out: Path, design: Design, origins: Mapping[str, Sequence[Origin]], clips_per_recording: int) -> None:
    """Refuse at once what would be refused after an hour."""
    if clips_per_recording < 1:
        raise ConfigError(f"--clips-per-recording {clips_per_recording}: give 1 or more")
    for origin in (*origins["SPEECH"], *origins["NONSPEECH"]):
        if origin.path is not None and origin.path.resolve().is_relative_to(out.resolve()):
            raise DataError(f"{origin.path}: the source lies in {out}, the folder of the bench: choose another folder")
    if any(origin.source is None for origin in origins["SPEECH"]):
        require_engines()


def _plan(
    slots: Sequence[Slot],
    design: Design,
    origins: Mapping[str, Sequence[Origin]],
    clips_per_recording: int,
    work: Path,
    workers: int,
    progress: Progress,
) -> tuple[dict[str, Job], dict[str, list[str]], list[Rejection]]:
    """What every clip is cut from or made as, by id of its slot; what babble is made of, by split; and what can't be used."""
    listed = {label: list_entries(origins[label]) for label in LABELS}
    parts = divide([entry for entries, _ in listed.values() for entry in entries], design)
    rejections = [rejection for _, found in listed.values() for rejection in found]
    jobs: dict[str, Job] = {}
    demands: dict[tuple[str, str, int], Demand] = {}
    for (split, label, number), waiting in _by_origin(slots, origins).items():
        if origins[label][number].source is None and label == "NONSPEECH":
            jobs |= {slot.id: Kind(_kind(slot, design)) for slot in waiting}
        else:
            least = TALKERS[0] + 1 if label == "SPEECH" and "babble" in design.noises else 0
            demands[split, label, number] = Demand(waiting, clips_per_recording, design.seed, least)
    with progress("cutting recordings", sum(demand.recordings for demand in demands.values())) as advance:
        surveyor = Surveyor(work, design, workers, advance)
        for (split, label, number), demand in demands.items():
            origin = origins[label][number]
            if origin.source is None:
                surveyor.speak(demand, split)
            else:
                surveyor.decode(demand, origin, [entry for entry in parts[split] if (entry.label, entry.origin) == (label, number)])
    refuse_unfilled((origins[label][number].spec, demand) for (_, label, number), demand in demands.items())
    for demand in demands.values():
        jobs |= demand.cuts
    return jobs, _talkers(demands, design), rejections + surveyor.rejections


def _by_origin(slots: Sequence[Slot], origins: Mapping[str, Sequence[Origin]]) -> dict[tuple[str, str, int], list[Slot]]:
    """Slots by split, class and number of their origin, each of which gets its share, spread evenly over the cells."""
    found: dict[tuple[str, str, int], list[Slot]] = defaultdict(list)
    seen = Counter[tuple[str, str]]()
    for slot in slots:
        place = (0.5 + seen[slot.split, slot.label] * _GOLDEN) % 1
        seen[slot.split, slot.label] += 1
        number, end = 0, origins[slot.label][0].share
        while place >= end and number + 1 < len(origins[slot.label]):
            number += 1
            end += origins[slot.label][number].share
        found[slot.split, slot.label, number].append(slot)
    return found


def _kind(slot: Slot, design: Design) -> str:
    """The kinds of a split take turns in each cell, from one that is drawn on."""
    kinds = kinds_of(slot.split)
    order = generator(design.seed, "kinds", slot.cell).permutation(len(kinds))
    return kinds[int(order[slot.number % len(kinds)])]


def _talkers(demands: Mapping[tuple[str, str, int], Demand], design: Design) -> dict[str, list[str]]:
    """By split, recordings of its own speech that babble is made of.

    Raises:
        DataError: there are too few.
    """
    if "babble" not in design.noises:
        return {}
    found = {
        split: [file for (part, label, _), demand in demands.items() if (part, label) == (split, "SPEECH") for file in demand.files]
        for split in design.counts
    }
    for split, files in found.items():
        if len(files) <= TALKERS[0]:
            raise DataError(
                f"--noises babble: {split} has {len(files)} recordings of speech, and {TALKERS[0] + 1} are needed: "
                "add recordings, give it a larger share in --splits, or leave babble out"
            )
    return {split: files[:_MAX_TALKERS] for split, files in found.items()}


def _make(folder: Folder, maker: Maker, slots: Sequence[Slot], jobs: Mapping[str, Job], workers: int, progress: Progress) -> None:
    """Make the clips that are not in the journal yet, in their order."""
    with Journal(folder) as journal, progress("mixing clips", len(slots) - journal.rows) as advance:
        todo = ((number, slot, jobs[slot.id]) for number, slot in islice(enumerate(slots), journal.rows, None))
        with ProcessPoolExecutor(workers) as pool:
            made = pool.map(maker, todo, chunksize=16)
            while block := list(islice(_told(made, advance), _BLOCK_ROWS)):
                journal.append(block)


def _told(made: Iterator[Any], advance: Callable[[], None]) -> Iterator[Any]:
    for clip in made:
        advance()
        yield clip


def _write_card(folder: Folder, bench: Mapping[str, Any], leakage: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: in_progress(path) for name, path in folder.manifests.items()}
    card = make_card(parts, in_progress(folder.rejected), leakage=leakage, made_by=made) | {"detection": bench}
    replace_text(folder.path / CARD_JSON, json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    replace_text(folder.path / CARD_HTML, render_card(card, folder.path.resolve().name))
    return card
