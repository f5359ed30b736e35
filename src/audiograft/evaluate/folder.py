"""The folder of a run while it is made: what belongs to whom, what is done already, and nothing lost when the process dies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from audiograft.data.manifest import replace_text, write_manifest
from audiograft.evaluate.predictions import PREDICTIONS_NAME, Prediction, parse_prediction
from audiograft.types import DETECTION_FILE, DataError

METRICS_NAME = "metrics.json"
RUN_NAME = "run.json"
RETENTION_NAME = "retention.json"
REPORT_NAMES = ("report.md", "report.html")
DEAFNESS_NAME, BLINDNESS_NAME = "deafness.jsonl", "blindness.jsonl"
VERDICTS_NAME = "verdicts.jsonl"
_PART = f"{PREDICTIONS_NAME}.part"
_FIGURES = (METRICS_NAME, RETENTION_NAME, *REPORT_NAMES)
_DECIDES = ("model", "model_fingerprint", "manifest_sha256", "prompt", "question", "language", "audio", "pictures", "context")
"""The keys of run.json that have to agree for a run to be the same one."""
UNSAID = {"pictures": "true"}
"""What a run.json means that lacks a key: it is of a time before there was another."""


class RunFolder:
    """Predictions on their way to a run folder.

    Rows are appended as they are done, to a file of their own, and put in the manifest's order at the end. What an interrupted run has done is
    found again; a line that was being written is not.

    Attributes:
        settings: what run.json will say.
        done: rows that need not be done again, by id.
        failed: rows that failed, whose clips may have been mended since. Where there are verdicts, which belong to the predictions as they are,
            these are done too.
        is_complete: whether the predictions have been put in order.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Open or make the folder.

        Args:
            path: of the folder.
            settings: what run.json will say.
            overwrite: give up what another run left there.

        Raises:
            DataError: the folder can't be used, holds another run, or verdicts about predictions that would go.
        """
        self.path = path
        self.settings = dict(settings)
        self.done: dict[str, Prediction] = {}
        self.failed: dict[str, Prediction] = {}
        self._judged = (path / VERDICTS_NAME).is_file()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{path}: can't be used as a run folder ({error.strerror}): choose another --out") from error
        other = self._other()
        if other is None and not overwrite:
            self._find_done()
        elif other is not None and not overwrite:
            raise DataError(f"{path}: holds {other}: choose another --out, or give it up with --overwrite")
        self.is_complete = (path / PREDICTIONS_NAME).is_file() and not (path / _PART).is_file()
        if self._judged and not self.done:
            raise DataError(f"{path}: holds verdicts about the predictions that would be replaced: choose another --out")

    def _other(self) -> str | None:
        """What is there that this run may not touch, in words."""
        told = self.path / RUN_NAME
        if not told.is_file():
            return "predictions without a run.json" if any((self.path / name).is_file() for name in (PREDICTIONS_NAME, _PART)) else None
        try:
            found = json.loads(told.read_text(encoding="utf-8"))
            differs = [key for key in _DECIDES if found.get(key, UNSAID.get(key)) != self.settings.get(key, UNSAID.get(key))]
        except (OSError, ValueError, AttributeError):
            return f"a {RUN_NAME} that can't be read"
        return f"another run (its {differs[0].replace('_', ' ')} differs)" if differs else None

    def _find_done(self) -> None:
        for name in (PREDICTIONS_NAME, _PART):
            file = self.path / name
            if not file.is_file():
                continue
            for number, line in enumerate(_whole_lines(file), start=1):
                place = f"{file}:{number}"
                try:
                    prediction = parse_prediction(json.loads(line), place)
                except ValueError as error:
                    raise DataError(f"{place}: no JSON: take the line out, or start again with --overwrite") from error
                kept = self.done if prediction.error is None or self._judged else self.failed
                kept[prediction.id] = prediction

    def start(self) -> None:
        """Say whose folder it is, before the first row; figures of other predictions go, so that they never lie beside these."""
        for name in (*_FIGURES, DEAFNESS_NAME, BLINDNESS_NAME):
            (self.path / name).unlink(missing_ok=True)
        write_json(self.path / RUN_NAME, self.settings)
        write_manifest(self.path / _PART, [prediction.as_row() for prediction in self.done.values()])
        (self.path / PREDICTIONS_NAME).unlink(missing_ok=True)

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Keep rows that are done."""
        with (self.path / _PART).open("a", encoding="utf-8") as file:
            for prediction in predictions:
                self.done[prediction.id] = prediction
                file.write(json.dumps(prediction.as_row(), ensure_ascii=False) + "\n")

    def finish(self, ids: Iterable[str]) -> Path:
        """Write the predictions in the manifest's order.

        Returns:
            The predictions file.
        """
        file = self.path / PREDICTIONS_NAME
        write_manifest(file, [self.done[id_].as_row() for id_ in ids])
        (self.path / _PART).unlink(missing_ok=True)
        return file


def _whole_lines(file: Path) -> list[bytes]:
    """Its lines but the last where the process died while it was written."""
    *lines, _ = file.read_bytes().split(b"\n")
    return lines


def model_fingerprint(name: str) -> str:
    """What tells apart two models of one name: names, sizes and times of a folder's files; of `tiny` and hub ids the name.

    Hashing gigabytes of weights would take longer than many a run. A detector's question is no part of it: run.json has it by itself.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in (".safetensors", ".bin", ".pt", ".json", ".model"))
    told = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.name not in ("train.json", DETECTION_FILE)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object for people and programs, whole or not at all."""
    replace_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
