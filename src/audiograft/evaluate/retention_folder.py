"""The folder of a retention run: whose it is, and its figures told again from its predictions, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiograft.evaluate.folder import BLINDNESS_NAME, DEAFNESS_NAME, METRICS_NAME, RETENTION_NAME, RUN_NAME, VERDICTS_NAME, write_json
from audiograft.evaluate.predictions import PREDICTIONS_NAME
from audiograft.evaluate.retention_figures import retention_figures
from audiograft.evaluate.retention_report import write_retention_reports
from audiograft.types import DataError

_PART = f"{PREDICTIONS_NAME}.part"
_DECIDES = ("model", "model_fingerprint", "base", "base_fingerprint", "manifest_sha256", "batch_size", "device")
"""The keys of retention.json that have to agree for a run to be the same one: rounding depends on the last two."""
_OF_OTHERS = (METRICS_NAME, DEAFNESS_NAME, BLINDNESS_NAME, _PART, RETENTION_NAME)


def is_retention(folder: Path) -> bool:
    """Whether a folder is that of a retention run."""
    return (folder / RETENTION_NAME).is_file()


def is_done(out: Path, settings: Mapping[str, Any], overwrite: bool) -> bool:
    """Make the folder, or find in it what would be done again.

    Args:
        out: the folder.
        settings: what the run comes from.
        overwrite: give up what another run left there.

    Returns:
        Whether this very run is there.

    Raises:
        DataError: the folder can't be used, holds another run, or verdicts about predictions that would go.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: can't be used as a run folder ({error.strerror}): choose another --out") from error
    if not overwrite and is_retention(out) and (out / PREDICTIONS_NAME).is_file():
        found = _stored(out)
        differs = next((key for key in _DECIDES if found.get(key) != settings[key]), None)
        if differs is None:
            return True
        other = f"another run (its {differs.replace('_', ' ')} differs)"
        raise DataError(f"{out}: holds {other}: choose another --out, or give it up with --overwrite")
    if not overwrite and any((out / name).exists() for name in (PREDICTIONS_NAME, _PART, RUN_NAME)):
        raise DataError(f"{out}: holds a run: choose another --out, or give it up with --overwrite")
    if (out / VERDICTS_NAME).is_file():
        raise DataError(f"{out}: holds verdicts about the predictions that would be replaced: choose another --out")
    return False


def clear(out: Path) -> None:
    """Take the figures of other predictions away, so that they never lie beside new ones."""
    for name in _OF_OTHERS:
        (out / name).unlink(missing_ok=True)


def tell(out: Path, about: Mapping[str, Any], slice_by: Sequence[str]) -> dict[str, Any]:
    """Compute the figures from the predictions; write retention.json and the reports.

    Args:
        out: the run folder, with its predictions.
        about: what they come from.
        slice_by: as for `retention_figures`.

    Returns:
        What is in retention.json.
    """
    told = {**about, **retention_figures(out, slice_by)}
    write_json(out / RETENTION_NAME, told)
    write_retention_reports(out, told)
    return told


def tell_again(out: Path, slice_by: Sequence[str] | None = None, further: Sequence[str] = ()) -> dict[str, Any]:
    """What `tell` does, of a run that is there.

    Args:
        out: the run folder.
        slice_by: as for `retention_figures`; the keys that it was told by before where there is None.
        further: more keys.

    Raises:
        DataError: retention.json or the predictions can't be used, or no row has a key.
    """
    about = _stored(out)
    keys = list(about.get("slices", {})) if slice_by is None else list(slice_by)
    try:
        return tell(out, about, [*dict.fromkeys([*keys, *further])])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{out / RETENTION_NAME}: is not as this version writes it ({error!r}): evaluate again, with --overwrite") from error


def _stored(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / RETENTION_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{out / RETENTION_NAME}: can't be read ({error}): evaluate again, with --overwrite") from error
    if not isinstance(found, dict):
        raise DataError(f"{out / RETENTION_NAME}: holds no JSON object: evaluate again, with --overwrite")
    return found
