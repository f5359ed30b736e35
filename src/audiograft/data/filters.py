"""Which rows of a corpus to leave out: every filter gives its kind and one reason with the number and the limit."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from audiograft.data.counting import HashCounter
from audiograft.data.languages import language_code
from audiograft.data.sources.base import option
from audiograft.types import WINDOW_S, ConfigError, Sample

if TYPE_CHECKING:  # it loads NumPy, and `audiograft prepare --help` reads the options here
    from audiograft.data.measure import Measured

Verdict = tuple[str, str]
"""(kind, reason)."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_LONGEST_PHRASE = 8
"""Words in a phrase that is looked for in a row of itself."""


@dataclass(frozen=True)
class Filters:
    """What may stay. Limits are part of what may stay; a filter of None is off."""

    min_duration_s: float = option("drop clips shorter than this", 0.1)
    max_duration_s: float | None = option("drop clips longer than this; the encoder hears 30 s at once", float(WINDOW_S))
    min_words_per_second: float | None = option("drop rows with fewer words of text a second: the text is cut off, or of another clip", None)
    max_words_per_second: float | None = option("drop rows with more words of text a second: the clip is cut off; people say 2 to 4", None)
    max_wer: float | None = option("drop rows whose stated word error rate is above this, in PERCENT, and rows that state none", None)
    languages: tuple[str, ...] = option("keep rows of these languages only, such as en or English", ())
    max_repeats: int | None = option("keep this many rows of one text, the first ones", None)
    max_loop: int | None = option("drop texts that say a word or phrase more often than this in succession, as recognisers do", None)
    max_compression: float | None = option("drop texts that zlib shortens more than this many times; Whisper's limit is 2.4", None)
    drop_empty: bool = option("drop rows without text, response or label", True)
    drop_silent: Literal["text", "all", "none"] = option("drop clips in which nothing was recorded: those with a text, all, or none", "text")
    min_level_db: float | None = option("drop clips whose level is below this, in dB of full scale, such as -60", None)
    max_clipped_share: float | None = option("drop clips with a larger share of samples at full scale, such as 0.001", None)
    drop_upsampled: bool = option("drop clips that were probably recorded at a lower rate than they are stored at", False)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and item.name != "min_level_db" and not value >= 0:
                raise ConfigError(f"{_flag(item.name)} {value:g}: give 0 or more")
        for low, high in (("min_duration_s", "max_duration_s"), ("min_words_per_second", "max_words_per_second")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ConfigError(f"{_flag(low)} {least:g} is above {_flag(high)} {most:g}: nothing would be left")

    def reject(self, sample: Sample, *measured: Measured) -> Verdict | None:
        """Why a row is left out, or None where it stays. Looks at nothing but its arguments, so it may run in any worker.

        Args:
            sample: the row.
            measured: of each of its clips, in order; none for a row of text alone.

        Returns:
            (kind, reason) of the first filter that it fails. `max_repeats` is not among them: see `TextRepeats`.
        """
        return next(self._verdicts(sample, measured), None)

    def _verdicts(self, sample: Sample, measured: tuple[Measured, ...]) -> Iterator[Verdict]:
        if self.drop_empty and not (sample.target or "").strip() and not sample.label:
            yield "text", "has neither text, response nor label: add one, or keep such rows with --no-drop-empty"
        yield from self._of_language(sample)
        yield from self._of_wer(sample)
        yield from self._of_text(sample.text or "")
        for clip in measured:
            yield from self._of_clip(clip, has_text=bool((sample.text or "").strip()))
        yield from self._of_pace(sample.text or "", sum(clip.duration_s for clip in measured))

    def _of_language(self, sample: Sample) -> Iterator[Verdict]:
        if not self.languages:
            return
        if not sample.language:
            yield "language", f"states no language, and --languages wants {', '.join(self.languages)}"
        elif language_code(sample.language) not in map(language_code, self.languages):
            yield "language", f"is in {sample.language}, not in --languages {', '.join(self.languages)}"

    def _of_wer(self, sample: Sample) -> Iterator[Verdict]:
        if self.max_wer is None:
            return
        stated = sample.extra.get("wer_percent")
        if stated is None:
            yield "wer", f"states no wer_percent to hold against --max-wer {self.max_wer:g}"
        elif isinstance(stated, bool) or not isinstance(stated, int | float) or math.isnan(stated):
            yield "wer", f"its wer_percent is {str(stated)[:40]!r}, no number to hold against --max-wer {self.max_wer:g}"
        elif stated > self.max_wer:
            yield "wer", f"a word error rate of {_beside(stated, self.max_wer)} %, more than --max-wer {self.max_wer:g}"

    def _of_text(self, text: str) -> Iterator[Verdict]:
        if self.max_loop is not None:
            phrase, times = longest_loop(text)
            if times > self.max_loop:
                yield "repeated", f"says {phrase[:40]!r} {times} times in succession, more than --max-loop {self.max_loop}"
        if self.max_compression is not None and (ratio := compression(text)) > self.max_compression:
            yield "repeated", f"its text shrinks {_beside(ratio, self.max_compression)} times, more than --max-compression {self.max_compression:g}"

    def _of_clip(self, clip: Measured, has_text: bool) -> Iterator[Verdict]:
        duration_s = clip.duration_s
        if duration_s < self.min_duration_s:
            yield "duration", f"lasts {_beside(duration_s, self.min_duration_s)} s, less than --min-duration-s {self.min_duration_s:g}"
        if self.max_duration_s is not None and duration_s > self.max_duration_s:
            yield "duration", f"lasts {_beside(duration_s, self.max_duration_s)} s, more than --max-duration-s {self.max_duration_s:g}"
        if clip.silent and (self.drop_silent == "all" or (self.drop_silent == "text" and has_text)):
            yield "silence", f"nothing was recorded{', and there is a text' if has_text else ''} (--drop-silent {self.drop_silent})"
        if self.min_level_db is not None and clip.rms_dbfs < self.min_level_db:
            yield "silence", f"its level is {_beside(clip.rms_dbfs, self.min_level_db)} dB, less than --min-level-db {self.min_level_db:g}"
        if self.max_clipped_share is not None and clip.clipped_share > self.max_clipped_share:
            share = _beside(clip.clipped_share, self.max_clipped_share)
            yield "clipping", f"a share of {share} of its samples is clipped, more than --max-clipped-share {self.max_clipped_share:g}"
        if self.drop_upsampled and clip.upsampled:
            yield "upsampled", f"has nothing above {clip.bandwidth_hz:.0f} Hz, though it is stored at {clip.native_rate_hz:g} Hz (--drop-upsampled)"

    def _of_pace(self, text: str, duration_s: float) -> Iterator[Verdict]:
        n_words = len(text.split())
        if not n_words or not duration_s:  # what isn't spoken has no pace
            return
        pace, least, most = n_words / duration_s, self.min_words_per_second, self.max_words_per_second
        if least is not None and pace < least:
            yield "words_per_second", f"{_beside(pace, least)} words a second, fewer than --min-words-per-second {least:g}"
        if most is not None and pace > most:
            yield "words_per_second", f"{_beside(pace, most)} words a second, more than --max-words-per-second {most:g}"


class TextRepeats:
    """Lets the first rows of each text through, over a whole corpus: texts that differ in case or spaces alone are the same.

    Rows that some other filter rejects don't come here, so that they don't use up the text. After an interruption, give it the texts of the
    rows that were kept: they leave it as it was.
    """

    def __init__(self, max_repeats: int) -> None:
        self._max_repeats = max_repeats
        self._seen = HashCounter()

    def reject(self, sample: Sample) -> Verdict | None:
        """Count a row, or say why it is one too many. Rows without text are never too many."""
        text = same_text(sample.text or "")
        if not text:
            return None
        if self._seen.count(text) >= self._max_repeats:
            return "repeated", f"its text was kept {self._max_repeats} times already, which is --max-repeats"
        self._seen.add(text)
        return None


def same_text(text: str) -> str:
    """A text without differences of case and spaces."""
    return " ".join(text.casefold().split())


def compression(text: str) -> float:
    """By how much zlib shortens a text: speech has 1 to 2, a loop more. Whisper (Radford et al. 2022, section 4.5) tries again above 2.4."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if data else 0.0


def longest_loop(text: str) -> tuple[str, int]:
    """The phrase of up to 8 words that follows itself most often, and how often it is said there; ("", 0) without words.

    Of phrases said as often the shortest wins, so that six times `no` are not three times `no no`.
    """
    words = _WORD.findall(text.casefold())
    phrase, most = (words[0], 1) if words else ("", 0)
    for n_words in range(1, min(_LONGEST_PHRASE, len(words) // 2) + 1):
        equal = 0
        for place in range(n_words, len(words)):
            equal = equal + 1 if words[place] == words[place - n_words] else 0
            if equal // n_words + 1 > most:
                most = equal // n_words + 1
                phrase = " ".join(words[place - n_words + 1 : place + 1])
    return phrase, most


def _beside(value: float, limit: float) -> str:
    """A number with as few decimals as show on which side of a limit it is: 30.01 beside 30, not 30.0."""
    for decimals in range(1, 12):
        rounded = round(value, decimals)
        if (rounded > limit) == (value > limit) and (rounded < limit) == (value < limit):
            return f"{rounded:.{decimals}f}"
    return repr(value)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
