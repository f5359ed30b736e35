"""The leakage gate: compares manifests, a run's training data with its test data, and a model's record of its training with test data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from audiograft.data.gate import COUNTS_OF, MAX_EXAMPLES, Gate, LeakageReport, Side
from audiograft.data.manifest import find_manifest
from audiograft.data.traces import Trace, TraceWriter, are_complete, read_traces
from audiograft.data.tracing import traces_of
from audiograft.types import TRAINING_TRACES, VALIDATION_TRACES, DataError

_BLOCK_ROWS = 512
_OLDER = "its record does not know: it is older than their comparison"


def compare(train: Iterable[Trace], test: Iterable[Trace], origin: str = "the training data") -> LeakageReport:
    """What training and test data share.

    Args:
        train: traces of the training data; read once, and not kept.
        test: traces of the test data.
        origin: what the training data is called in the report.
    """
    gate = Gate(test)
    gate.add(train, origin)
    return gate.report()


def compare_manifests(
    train: Sequence[str | Path],
    test: str | Path,
    *,
    workers: int | None = None,
    allow_outside: bool = False,
    n_examples: int = MAX_EXAMPLES,
    on_row: Callable[[], None] = lambda: None,
) -> LeakageReport:
    """What the manifests of training data and that of test data share.

    Args:
        train: manifests; or folders of models, of which the record of their training is taken.
        test: a manifest.
        workers: threads that decode clips and images of which there are no traces yet.
        allow_outside: also take clips that do not lie below the folder of their manifest.
        n_examples: shown of each kind, at most; of each test clip and each name or text there is one.
        on_row: called after each row of each manifest.

    Raises:
        DataError: a manifest can't be read, or none of its rows fits.
    """
    traced = partial(traces_of, workers=workers, allow_outside=allow_outside, on_row=on_row)
    gate = _gate(traced, test)
    for path in map(Path, train):
        record = path / TRAINING_TRACES
        if record.is_file():
            gate.add(read_traces(record), str(record))
            gate.train.partial_records += not are_complete(record)
        else:
            gate.add(traced(path, on_refused=gate.train.refuse), str(find_manifest(path)))
    return gate.report(n_examples)


def _gate(traced: Callable[..., Iterator[Trace]], test: str | Path) -> Gate:
    side = Side()
    return Gate(traced(test, on_refused=side.refuse), side)


def hold_out(manifest: str | Path, *, allow_outside: bool = False, on_row: Callable[[], None] = lambda: None) -> Gate:
    """A gate before test data that training must not touch.

    Args:
        manifest: of the test data.
        allow_outside: also take clips that do not lie below the manifest's folder.
        on_row: called after each row.

    Raises:
        DataError: the manifest can't be read, or one of its rows does not fit: what is not compared would not be held out.
    """

    def refuse(error: DataError) -> None:
        raise error

    return Gate(traces_of(manifest, allow_outside=allow_outside, on_row=on_row, on_refused=refuse))


def check_training(
    train: Sequence[str | Path],
    validation: str | Path | None,
    held_out: Sequence[str | Path],
    allowed: Collection[str],
    *,
    allow_outside: bool = False,
    on_row: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Compare a run's training data with its validation data, and with the test data that it must not touch.

    What validation data shares is told and no more: to train and validate on the same rows is a way to see whether a model learns at all. Since
    validation chooses among runs, test data must not touch it either.

    Args:
        train: manifests of the training data.
        validation: manifest of the validation data.
        held_out: manifests of the test data.
        allowed: those of `LEAKAGE_KINDS` that test data may share.
        allow_outside: also take clips that do not lie below the folder of their manifest.
        on_row: called after each row of each manifest.

    Returns:
        For JSON: `allowed`, and what is shared by `validation` (None where there is none) and by each of `held_out`.

    Raises:
        DataError: a manifest can't be read, a row of test data does not fit, or test data shares what is not allowed.
    """
    traced = partial(traces_of, allow_outside=allow_outside, on_row=on_row)
    tests = {str(manifest): hold_out(manifest, allow_outside=allow_outside, on_row=on_row) for manifest in held_out}
    validated = None if validation is None else _gate(traced, validation)
    for manifest in train if tests or validated else ():
        gates = [*tests.values(), *filter(None, [validated])]
        _add_to_all(gates, traced, manifest)
    if validation is not None:
        _add_to_all(list(tests.values()), traced, validation)
    reports = {manifest: gate.report() for manifest, gate in tests.items()}
    for manifest, report in reports.items():
        if forbidden := [kind for kind in report.touches if kind not in allowed]:
            shared = "clips" if forbidden[0] == "audio" else forbidden[0]
            raise DataError(
                f"{manifest}: held out, but its training data shares {report.count(forbidden[0])} {shared} with it, such as test row "
                f"{report.first(forbidden[0])}: take them out of it, or allow it with data.allow_leakage"
            )
    return {
        "allowed": sorted(allowed),
        "validation": None if validated is None else validated.report().as_dict(),
        "held_out": {manifest: report.as_dict() for manifest, report in reports.items()},
    }


def _add_to_all(gates: Sequence[Gate], traced: Callable[..., Iterator[Trace]], manifest: str | Path) -> None:
    """Give a manifest of training data to several gates, block by block, so that it is read once."""

    def refuse(error: DataError) -> None:
        for gate in gates:
            gate.train.refuse(error)

    traces = traced(manifest, on_refused=refuse) if gates else iter(())
    while block := list(islice(traces, _BLOCK_ROWS)):
        for gate in gates:
            gate.add(block, str(find_manifest(manifest)))


def save_traces(
    folder: Path, manifests: Sequence[str | Path], base: Path | None = None, *, record: str = TRAINING_TRACES, allow_outside: bool = False
) -> Path:
    """Write the record of what a model was trained or validated on into its folder, so that any test data can be compared with it later.

    It holds ids, names of speakers and recordings, digests of texts, fingerprints of clips, and images at 24 x 24 pixels: neither text nor sound.

    Args:
        folder: of the model.
        manifests: of its training or validation data.
        base: folder of the model that it was trained from, whose record comes first; None where it was grafted for the run. Where `base` has
            no record, the new one says that it is not all.
        record: `TRAINING_TRACES` or `VALIDATION_TRACES`.
        allow_outside: also take clips that do not lie below the folder of their manifest.

    Raises:
        DataError: a manifest can't be read, or the file can't be written.
    """
    path = folder / record
    staged = folder / f"{record}.part"
    before = None if base is None else base / record
    has_record = before is not None and before.is_file()
    complete = before is None or (has_record and are_complete(before))
    with TraceWriter(staged, complete=complete) as writer:
        earlier = read_traces(before) if before is not None and has_record else ()
        for trace in chain(earlier, *(traces_of(manifest, allow_outside=allow_outside) for manifest in manifests)):
            writer.append(trace)
    staged.replace(path)
    return path


def check_model(folder: Path, manifest: str | Path, allow_outside: bool = False, record: str = TRAINING_TRACES) -> dict[str, Any]:
    """Compare test data with the record of what a model was trained on, or validated on.

    Args:
        folder: of the model.
        manifest: of the test data.
        allow_outside: also take clips that do not lie below the manifest's folder.
        record: `TRAINING_TRACES` or `VALIDATION_TRACES`.

    Returns:
        For JSON: `checked`; where it is false, `why`; else `complete`, whether the record covers all training that led to the model, and
        what is shared.

    Raises:
        DataError: the manifest can't be read.
    """
    path = folder / record
    if not path.is_file():
        return {"checked": False, "why": f"the model has no record of what it was {'trained' if record == TRAINING_TRACES else 'validated'} on"}
    gate = _gate(partial(traces_of, allow_outside=allow_outside), manifest)
    try:
        gate.add(read_traces(path), record)
        return {"checked": True, "complete": are_complete(path), **gate.report().as_dict()}
    except DataError as error:
        return {"checked": False, "why": str(error)}


def check_choice(folder: Path, manifest: str | Path, allow_outside: bool = False) -> dict[str, Any]:
    """Whether a checkpoint may have been chosen by its score on these data: training showed its score on them, clip by clip or in part.

    Args:
        folder: of the model.
        manifest: of the test data.
        allow_outside: also take clips that do not lie below the manifest's folder.

    Returns:
        For JSON: `known`; `chosen_on_this_data` (None where it is not known); `clips` and `pictures` that are shared; `why`, one line for people.

    Raises:
        DataError: the manifest can't be read.
    """
    found = check_model(folder, manifest, allow_outside, VALIDATION_TRACES)
    unknown = {"known": False, "chosen_on_this_data": None, "clips": None, "pictures": None}
    if not found["checked"]:
        return unknown | {"why": f"choice of checkpoint not checked: {found['why']}"}
    counts = shared_counts(found)
    clips, pictures = counts["audio"], counts["pictures"]
    test = found["test"]
    heard = test["clips"] - test["unreadable"] - test["silent"]
    seen = test["pictures"] - test["unreadable_pictures"] - test["blank_pictures"]
    if not heard and not seen:
        return unknown | {"why": "choice of checkpoint not checked: none of these rows has a clip with sound, or a picture"}
    what = " and ".join([*["clips"] * bool(heard), *["pictures"] * bool(seen)])
    complete = found["complete"] and not (seen and found["train"]["pictures_unknown"])
    if clips or pictures:
        shared = " and ".join(f"{count} of these {kind}" for kind, count in (("clips", clips), ("pictures", pictures)) if count)
        why = f"not a clean test: {shared} were validated on during training, so the checkpoint may have been chosen by them"
    elif complete:
        why = f"not used to choose the checkpoint: none of its {what} was validated on during training"
    elif found["complete"]:
        why = f"no clip was validated on during training; of pictures {_OLDER}"
    else:
        why = f"none of its {what} was validated on in this model's last training; the model that it was trained from has no record"
    return {
        "known": bool(clips or pictures) or complete,
        "chosen_on_this_data": bool(clips or pictures),
        "clips": clips,
        "pictures": pictures,
        "why": why,
    }


def shared_counts(leakage: Mapping[str, Any]) -> dict[str, int]:
    """How many of each of `LEAKAGE_KINDS` are shared, of a report as JSON; it may be older than the comparison of pictures."""
    return {kind: sum(leakage["shared"].get(name, {}).get("shared", 0) for name in names) for kind, names in COUNTS_OF.items()}


def summary_line(leakage: dict[str, Any]) -> str:
    """One line for people of what `check_model` gave."""
    if not leakage["checked"]:
        return f"leakage not checked: {leakage['why']}"
    seen = leakage["test"].get("pictures", 0)
    shared = {kind: count for kind, count in shared_counts(leakage).items() if kind != "pictures" or seen}
    counts = ", ".join(f"{n} {'clips' if kind == 'audio' else kind}" for kind, n in shared.items())
    limits = [] if leakage["complete"] else ["its record does not cover the model that it was trained from"]
    if seen and leakage["train"]["pictures_unknown"]:
        limits.append(f"of pictures {_OLDER}")
    known = f" ({'; '.join(limits)})" if limits else ""
    return f"{'touches' if leakage['touches'] else 'does not touch'} training data: {counts}{known}"
