"""The review page as files: one that holds everything, or a folder with the audio beside the page. Neither needs a server or a network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import soundfile

from audiograft.audio import load_audio
from audiograft.audit.peaks import clip_peaks
from audiograft.audit.rows import clip_rows, run_row, verdict_rows
from audiograft.audit.run import AuditRun
from audiograft.audit.suggestions import Suggestion
from audiograft.audit.verdicts import Verdict, check_rater
from audiograft.data.manifest import replace_text
from audiograft.types import SAMPLE_RATE_HZ, AudioError, ConfigError, DataError

_LOGGER = logging.getLogger(__name__)
MAX_SINGLE_FILE_CLIPS = 200
"""More clips in one page are slow to open: some 30 MB for clips of 20 s each."""
_PAGE = files("audiograft.audit") / "page"
_STYLE = re.compile(r'<link rel="stylesheet" href="/static/([\w.]+)">')
_SCRIPT = re.compile(r'<script src="/static/([\w.]+)"></script>')
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}")
"""What ends the name of a file rather than of a folder: `.pdf`, and not the `.2` of a version."""
_MP3_QUALITY = 0.5
"""libsndfile's compression level: some 45 kbit/s for speech at 16 kHz, more than speech recognition or a rater needs."""


def export_static(
    run: AuditRun,
    target: Path,
    *,
    verdicts: Sequence[Verdict],
    results: Mapping[str, Any] | None,
    patterns: Mapping[str, Any] | None,
    suggestions: Mapping[str, Suggestion] | None,
    blind: bool = False,
    rater: str | None = None,
    normalised: bool = False,
    on_clip: Callable[[], None] = lambda: None,
) -> Path:
    """Write the review page of a run for people who have no server: it opens from a disk, keeps verdicts in the browser, and gives them as a file.

    Audio is compressed (MP3, 16 kHz, mono). Clips whose audio is not there or can't be decoded are on the page as such, and counted in a warning.

    Args:
        run: the clips.
        target: a name that ends in `.html` for one file with everything in it, else a new folder for `index.html` and `audio/`.
        verdicts: those in force, which the page shows.
        results: of `audiograft.audit.results.results`, as of now.
        patterns: error patterns.
        suggestions: likely label errors.
        blind: show both texts as X and Y. The page then holds nothing that tells which of them is the label: neither results, patterns nor
            suggestions, and of the verdicts the rater's own choices alone.
        rater: who will judge, asked by the page where None. A blind page is for one rater, whose order of X and Y it has.
        normalised: a blind page shows the texts as they are after normalisation.
        on_clip: called after each clip.

    Returns:
        The page.

    Raises:
        ConfigError: too many clips for one file, a file that is no `.html`, or a blind page for nobody.
        DataError: the folder is not empty, or can't be written.
    """
    if blind and rater is None:
        raise ConfigError("a blind page is for one rater: name who will judge with --rater")
    rater = rater if rater is None else check_rater(rater)
    is_single = _is_single(target, len(run.clips))
    folder = target.parent if is_single else target
    _make_folder(folder, empty=not is_single)
    shown = {} if blind else {"results": results, "patterns": patterns}
    keep = _as_data_uri if is_single else partial(_as_file, folder)
    data = {
        "run": run_row(run, blind=blind, rater=rater or "", has_suggestions=bool(suggestions), normalised=normalised),
        "clips": clip_rows(run, blind=blind, rater=rater or "", suggestions=suggestions, normalised=normalised),
        "verdicts": {name: verdict_rows(given, blind) for name, given in _by_rater(verdicts, rater if blind else None).items()},
        "results": None,
        "patterns": None,
        **shown,
        **_audio(run, keep, on_clip),
    }
    page = target if is_single else target / "index.html"
    replace_text(page, page_with(data))
    return page


def _is_single(target: Path, n_clips: int) -> bool:
    """Whether all goes into one file."""
    if target.suffix.lower() not in (".html", ".htm"):
        if _FILE_SUFFIX.fullmatch(target.suffix) and not target.is_dir():
            raise ConfigError(
                f"{target}: the page is no {target.suffix} file: name {target.with_suffix('.html')}, or a folder ({target.with_suffix('')})"
            )
        return False
    if n_clips > MAX_SINGLE_FILE_CLIPS:
        mend = "draw some with --sample, or name a folder"
        raise ConfigError(f"{target}: {n_clips} clips are too many for one file, which takes {MAX_SINGLE_FILE_CLIPS}: {mend}")
    return True


def _by_rater(verdicts: Sequence[Verdict], only: str | None) -> dict[str, list[Verdict]]:
    raters = dict.fromkeys(verdict.rater for verdict in verdicts if only in (None, verdict.rater))
    return {rater: [verdict for verdict in verdicts if verdict.rater == rater] for rater in raters}


def _make_folder(folder: Path, empty: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: can't be written ({error.strerror}): correct the path or its permissions") from error
    if empty and not is_empty:
        raise DataError(f"{folder}: is not empty: name a new folder")


def page_with(data: Mapping[str, Any]) -> str:
    """The page with its style, its scripts and these data in it; its security policy lets no other script run, and nothing be fetched but audio."""
    inlined: dict[str, list[str]] = {"style": [], "script": []}

    def inline(tag: str, found: re.Match[str]) -> str:
        text = (_PAGE / found[1]).read_text(encoding="utf-8")
        inlined[tag].append(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
        return f"<{tag}>{text}</{tag}>"

    page = (_PAGE / "index.html").read_text(encoding="utf-8")
    page = _STYLE.sub(partial(inline, "style"), page)
    body, first, scripts = page.partition("<script ")
    scripts = _SCRIPT.sub(partial(inline, "script"), first + scripts)
    # Within JSON a `<` can only stand in a string, where its escape means the same: no text can end the element.
    island = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    head = f'<meta http-equiv="Content-Security-Policy" content="{_policy(**inlined)}">\n<title>'
    return f'{body.replace("<title>", head, 1)}<script type="application/json" id="data">{island}</script>\n{scripts}'


def _policy(style: Sequence[str], script: Sequence[str]) -> str:
    def allowed(hashes: Sequence[str]) -> str:
        return " ".join(f"'sha256-{value}'" for value in hashes)

    own = f"style-src {allowed(style)}; script-src {allowed(script)}"
    return f"default-src 'none'; {own}; media-src 'self' data:; img-src data:; base-uri 'none'; form-action 'none'"


_Keep = Callable[[str, bytes], str]
"""Keeps an MP3 under a name, and returns its address for the page."""


def _audio(run: AuditRun, keep: _Keep, on_clip: Callable[[], None]) -> dict[str, Any]:
    """`audio`: for each clip the addresses of its files; `peaks`: their outlines; null where a file can't be decoded."""
    audio: list[list[str | None]] = []
    peaks: list[list[dict[str, Any] | None]] = []
    errors: list[AudioError] = []
    for clip in run.clips:
        kept: list[tuple[str | None, dict[str, Any] | None]] = []
        for part, path in enumerate(clip.path):
            try:
                kept.append((keep(f"{clip.index:05d}-{part}.mp3", _mp3(path)), clip_peaks(path).as_row()))
            except AudioError as error:
                errors.append(error)
                kept.append((None, None))
        audio.append([address for address, _ in kept])
        peaks.append([outline for _, outline in kept])
        on_clip()
    if errors:
        _LOGGER.warning("audio files that can't be decoded and are missing on the page: %d; the first: %s", len(errors), errors[0])
    return {"audio": audio, "peaks": peaks}


def _mp3(path: Path) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, load_audio(path).waveform, SAMPLE_RATE_HZ, format="MP3", compression_level=_MP3_QUALITY, bitrate_mode="VARIABLE")
    return file.getvalue()


def _as_data_uri(name: str, content: bytes) -> str:
    return f"data:audio/mpeg;base64,{base64.b64encode(content).decode()}"


def _as_file(folder: Path, name: str, content: bytes) -> str:
    path = folder / "audio" / name
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror}): free space, or correct the path or its permissions") from error
    return f"audio/{name}"
