"""The report of a run: `report.md`, and `report.html`, one page that needs nothing besides itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiograft import __version__
from audiograft.data.manifest import replace_text
from audiograft.data.pages import page_environment, printable, render_page
from audiograft.evaluate.clips import ScoredClip, score_clips
from audiograft.evaluate.detection_report import build_detection_sections, detection_tiles
from audiograft.evaluate.folder import METRICS_NAME, REPORT_NAMES, RUN_NAME
from audiograft.evaluate.predictions import find_predictions, read_predictions
from audiograft.evaluate.scoring import score
from audiograft.evaluate.sections import Section, build_sections, short
from audiograft.evaluate.tables import SPEED, Metrics, blindness_line, checkpoint_line, counted, deafness_line, leakage_line, percent, rounded, span
from audiograft.metrics.normalisers import get_normaliser
from audiograft.types import DataError

_MARKDOWN = re.compile(r"[\\`*_\[\]#|~$]")
_HTML = {ord(sign): f"&#{ord(sign)};" for sign in "&<>@"}
_LINK = re.compile(r"(?<=http):|(?<=https):|(?<=ftp):|(?<=mailto):|(?<=xmpp):|(?<=www)\.", re.IGNORECASE)


def write_reports(run: Path) -> list[Path]:
    """Write `report.md` and `report.html` of a run.

    Args:
        run: a folder with metrics.json and predictions.jsonl; a run.json tells where they come from, where there is one.

    Returns:
        The files.

    Raises:
        DataError: a file is missing or can't be used.
    """
    metrics, about = _read_object(run / METRICS_NAME), _read_object(run / RUN_NAME) if (run / RUN_NAME).is_file() else {}
    try:
        clips = score_clips(read_predictions(find_predictions(run)), get_normaliser(metrics["normaliser"]["name"]))
        facts = {
            "title": short(run.resolve().name),
            "model": short(str(about.get("model", "a model that is not named"))),
            "version": __version__,
            "tiles": detection_tiles(metrics) if metrics.get("detection") else _tiles(metrics),
            "checks": _checks(metrics),
            "sections": list(_build(metrics, about, clips, run)),
            "origin": "the same numbers are in metrics.json, and all of them come from predictions.jsonl",
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{run / METRICS_NAME}: is not as this version writes it ({error!r}): make it again with audiograft report {run}") from error
    return render_reports(run, facts)


def render_reports(folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """Write `report.md` and `report.html` of what the templates want to know.

    Returns:
        The files.
    """
    texts = {"report.md": _render_markdown(**facts), "report.html": render_page("report.html.jinja", **facts)}
    for name in REPORT_NAMES:
        replace_text(folder / name, texts[name])
    return [folder / name for name in REPORT_NAMES]


def _build(metrics: Metrics, about: Mapping[str, Any], clips: Sequence[ScoredClip], run: Path) -> Iterator[Section]:
    """The parts of a run's report."""
    build = build_detection_sections if metrics.get("detection") else build_sections
    return build(metrics, about, clips, str(run))


def save_figures(run: Path, folder: Path) -> list[Path]:
    """Write the plots of a run's report as pictures on white, `detection-grid.png` among them: for pages of documentation.

    Args:
        run: a folder with predictions.jsonl; it stays as it is.
        folder: where to.

    Raises:
        DataError: the predictions can't be used.
    """
    metrics = score(run)
    clips = score_clips(read_predictions(run), get_normaliser(metrics["normaliser"]["name"]))
    prefix = "detection-" if metrics["detection"] else ""
    drawings = [section.drawing for section in _build(metrics, {}, clips, run) if section.drawing]
    return [drawing.save(folder / f"{prefix}{drawing.name}.png") for drawing in drawings]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file: audiograft report {path.parent} writes it from the predictions") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}): remove it") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no JSON object: remove it")
    return found


def _tiles(metrics: Metrics) -> list[tuple[str, str, str]]:
    """The figures that stand first: name, value, and what belongs to it."""
    tiles = []
    for key, name in (("wer", "WER"), ("accuracy", "right answers")):
        if rate := metrics[key]:
            tiles.append((name, percent(rate["rate"]), f"95 %: {span(rate['interval'])}"))
    n_failed = len(metrics["failed"])
    speakers = metrics["rows_without"].get("speaker")
    tiles.append(("rows", f"{metrics['n_clips']:,}", f"{n_failed:,} failed" if n_failed else "none failed"))
    if metrics["audio_s"]:
        tiles.append(("hours", f"{metrics['audio_s'] / 3600:,.2f}", "of audio"))
    if metrics["rtfx"] is not None:
        tiles.append(("RTFx", rounded(metrics["rtfx"]), SPEED))
    named = len(metrics["slices"].get("speaker", ()))
    if named:
        tiles.append(("speakers", f"{named:,}", f"{counted(speakers, 'row')} without one" if speakers else ""))
    return tiles


def _checks(metrics: Metrics) -> list[tuple[str, str]]:
    """What one has to know beside the number: `good`, `bad` or `unknown`, and a line."""
    leakage, checkpoint, deafness = (metrics.get(key) or {} for key in ("leakage", "checkpoint", "deafness"))
    touches = leakage.get("touches") if leakage.get("checked") else None
    chosen = checkpoint.get("chosen_on_this_data") if checkpoint.get("known") else None
    checks = [
        (_state(bool(touches) if touches is not None else None, leakage.get("complete", False)), leakage_line(metrics)),
        (_state(chosen, True), checkpoint_line(metrics)),
    ]
    if found := metrics.get("detection"):
        checks.append((_state(found["chosen_on_this_data"], bool(found["chosen_on"])), found["choice"]))
    if deafness:
        checks.append((_state(deafness["deaf"], True), deafness_line(metrics)))
    if blindness := metrics.get("blindness"):
        checks.append((_state(blindness["blind"], True), blindness_line(metrics)))
    return checks


def _state(bad: bool | None, complete: bool) -> str:
    if bad:
        return "bad"
    return "good" if bad is False and complete else "unknown"


def _render_markdown(**facts: Any) -> str:
    environment = page_environment(finalize=_plain, keep_trailing_newline=True)
    environment.filters.update(row=_row, code=_code)
    return environment.get_template("report.md.jinja").render(**facts)


def _plain(value: object) -> object:
    """Text that is nothing but text in Markdown, within a table too: no markup, HTML, link, mention or end of line."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    plain = _MARKDOWN.sub(r"\\\g<0>", printable(" ".join(value.split())))
    return _LINK.sub(lambda found: f"&#{ord(found[0])};", plain.translate(_HTML))


def _row(cells: Sequence[str]) -> str:
    """A row of a table."""
    from markupsafe import Markup

    return Markup(f"| {' | '.join(str(_plain(cell)) for cell in cells)} |")


def _code(text: str) -> str:
    """For a block of code: in a single line nothing can end it, and nothing in it is markup."""
    from markupsafe import Markup

    return Markup(printable(text))
