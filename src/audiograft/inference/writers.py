"""Transcripts as text, JSON, JSON lines and subtitles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape

from audiograft.types import ConfigError, Segment, Transcript


def _text(transcripts: Sequence[Transcript]) -> str:
    if len(transcripts) == 1:
        return f"{transcripts[0].text}\n"
    return "".join(f"{transcript.audio}: {transcript.text}\n" for transcript in transcripts)


def _json(transcripts: Sequence[Transcript]) -> str:
    return json.dumps([transcript.as_row() for transcript in transcripts], ensure_ascii=False, indent=2) + "\n"


def _jsonl(transcripts: Sequence[Transcript]) -> str:
    return "".join(json.dumps(transcript.as_row(), ensure_ascii=False) + "\n" for transcript in transcripts)


def _srt(transcripts: Sequence[Transcript]) -> str:
    cues = enumerate(_cues(transcripts), start=1)
    return "\n".join(f"{number}\n{_span(segment, ',')}\n{text}\n" for number, (segment, text) in cues)


def _vtt(transcripts: Sequence[Transcript]) -> str:
    # WebVTT reads < and & as markup.
    return "WEBVTT\n" + "".join(f"\n{_span(segment, '.')}\n{escape(text, quote=False)}\n" for segment, text in _cues(transcripts))


def _cues(transcripts: Sequence[Transcript]) -> Iterator[tuple[Segment, str]]:
    """The segments with text in them; on one line each, since a blank line would end a cue."""
    for transcript in transcripts:
        for segment in transcript.segments:
            if text := " ".join(segment.text.split()):
                yield segment, text


def _span(segment: Segment, decimal_mark: str) -> str:
    return f"{_timestamp(segment.start_s, decimal_mark)} --> {_timestamp(segment.end_s, decimal_mark)}"


def _timestamp(time_s: float, decimal_mark: str) -> str:
    """HH:MM:SS and milliseconds."""
    seconds, ms = divmod(round(time_s * 1000), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_mark}{ms:03}"


_WRITERS: dict[str, tuple[str, Callable[[Sequence[Transcript]], str]]] = {
    "text": (".txt", _text),
    "json": (".json", _json),
    "jsonl": (".jsonl", _jsonl),
    "srt": (".srt", _srt),
    "vtt": (".vtt", _vtt),
}
FORMATS: tuple[str, ...] = tuple(_WRITERS)


def render(transcripts: Sequence[Transcript], fmt: str) -> str:
    """Write transcripts in one of `FORMATS`, each line ended, ready for a file or stdout.

    text is the bare text of one clip, or `audio: text` lines for several; json an indented list; jsonl one object a line with the keys
    audio, text, duration_s, model, segments ({start_s, end_s, text}) and confidence: the geometric mean of the probabilities that the model gave its
    tokens, between 0 and 1, null where it wrote none or followed beams. It is not the probability that the text is right. srt and vtt hold one cue a
    segment; times start anew with each clip, so give one clip a file.

    Raises:
        ConfigError: an unknown format.
    """
    # A file name that is no UTF-8 arrives with lone surrogates, which no output could encode; JSON reads \udcXX back as it was.
    return _writer(fmt)[1](transcripts).encode("utf-8", "backslashreplace").decode("utf-8")


def extension(fmt: str) -> str:
    """The file name's ending for a format, with its dot.

    Raises:
        ConfigError: an unknown format.
    """
    return _writer(fmt)[0]


def _writer(fmt: str) -> tuple[str, Callable[[Sequence[Transcript]], str]]:
    if fmt not in _WRITERS:
        raise ConfigError(f"unknown format {fmt!r}: use {', '.join(FORMATS)}")
    return _WRITERS[fmt]
