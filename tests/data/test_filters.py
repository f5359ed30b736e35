"""Each filter by rows right at its limit, on either side, and without what it looks at; then what holds of all limits."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audiograft.data.counting import HashCounter
from audiograft.data.filters import Filters, TextRepeats, compression, longest_loop, same_text
from audiograft.data.languages import language_code
from audiograft.data.measure import Measured
from audiograft.types import ConfigError, Sample

CLIP = Measured(4.0, 0.5, -20.0, 0.0, False, 8_000.0, 16_000.0)
ROW = Sample("a", ("a.wav",), text="one two three four five six seven eight", language="en", extra={"wer_percent": 10.0})


def row(**changes: Any) -> Sample:
    return replace(ROW, **changes)


def clip(**changes: Any) -> Measured:
    return replace(CLIP, **changes)


def test_an_ordinary_row_stays() -> None:
    assert Filters().reject(ROW, CLIP) is None


@pytest.mark.parametrize(
    ("options", "sample", "measured", "kind", "reason"),
    [
        ({}, ROW, clip(duration_s=31.2), "duration", "lasts 31.2 s, more than --max-duration-s 30"),
        ({}, ROW, clip(duration_s=30 + 1 / 16_000), "duration", "lasts 30.0001 s, more than --max-duration-s 30"),
        ({"min_duration_s": 5.0}, ROW, CLIP, "duration", "lasts 4.0 s, less than --min-duration-s 5"),
        ({"max_words_per_second": 1.99}, ROW, CLIP, "words_per_second", "2.0 words a second, more than --max-words-per-second 1.99"),
        ({"min_words_per_second": 3.0}, ROW, CLIP, "words_per_second", "2.0 words a second, fewer than --min-words-per-second 3"),
        ({"max_wer": 9.5}, ROW, CLIP, "wer", "a word error rate of 10.0 %, more than --max-wer 9.5"),
        ({"max_wer": 9.5}, row(extra={}), CLIP, "wer", "states no wer_percent to hold against --max-wer 9.5"),
        ({"max_wer": 9.5}, row(extra={"wer_percent": math.nan}), CLIP, "wer", "its wer_percent is 'nan', no number to hold against --max-wer 9.5"),
        ({"max_wer": 9.5}, row(extra={"wer_percent": "5"}), CLIP, "wer", "its wer_percent is '5', no number to hold against --max-wer 9.5"),
        ({"max_wer": 9.5}, row(extra={"wer_percent": math.inf}), CLIP, "wer", "a word error rate of inf %, more than --max-wer 9.5"),
        ({"languages": ("de", "fr")}, ROW, CLIP, "language", "is in en, not in --languages de, fr"),
        ({"languages": ("de",)}, row(language=None), CLIP, "language", "states no language, and --languages wants de"),
        ({"max_clipped_share": 0.001}, ROW, clip(clipped_share=0.25), "clipping",
         "a share of 0.2 of its samples is clipped, more than --max-clipped-share 0.001"),
        ({}, ROW, clip(silent=True), "silence", "nothing was recorded, and there is a text (--drop-silent text)"),
        ({"drop_silent": "all"}, row(text=None, label="NOISE"), clip(silent=True), "silence", "nothing was recorded (--drop-silent all)"),
        ({"min_level_db": -15.0}, ROW, CLIP, "silence", "its level is -20.0 dB, less than --min-level-db -15"),
        ({"drop_upsampled": True}, ROW, clip(bandwidth_hz=3_800.0), "upsampled",
         "has nothing above 3800 Hz, though it is stored at 16000 Hz (--drop-upsampled)"),
        ({"max_loop": 3}, row(text="well the the, The the end"), CLIP, "repeated", "says 'the' 4 times in succession, more than --max-loop 3"),
        ({"max_compression": 2.4}, row(text="I see. " * 30), CLIP, "repeated", "more than --max-compression 2.4"),
        ({}, row(text=" \n"), CLIP, "text", "has neither text, response nor label: add one, or keep such rows with --no-drop-empty"),
    ],
)  # fmt: skip
def test_a_row_beyond_a_limit_is_named_with_number_and_limit(
    options: dict[str, Any], sample: Sample, measured: Measured, kind: str, reason: str
) -> None:
    verdict = Filters(**options).reject(sample, measured)
    assert verdict is not None
    assert verdict[0] == kind
    assert verdict[1].endswith(reason)
    assert "\n" not in verdict[1]


@pytest.mark.parametrize(
    ("options", "sample", "measured"),
    [
        ({"max_wer": 10.0}, ROW, CLIP),
        ({"max_wer": 0.0}, row(extra={"wer_percent": 0}), CLIP),
        ({"languages": ("English",)}, row(language="en-GB"), CLIP),
        ({"max_loop": 4}, row(text="the the the the"), CLIP),
        ({"max_duration_s": None}, ROW, clip(duration_s=3_600.0)),
        ({"drop_silent": "none"}, ROW, clip(silent=True)),
        ({}, row(text="", label="NONSPEECH"), clip(silent=True)),
        ({"drop_empty": False}, row(text=None), CLIP),
        ({}, row(text=None, response="A dog."), CLIP),
        ({"min_words_per_second": 1.0}, row(text="", label="NONSPEECH"), CLIP),
        ({"min_words_per_second": 1.0, "max_words_per_second": 2.0}, row(clips=()), None),
        ({"drop_upsampled": True}, ROW, clip(bandwidth_hz=4_000.0, native_rate_hz=8_000.0)),
    ],
)
def test_a_row_within_its_limits_stays(options: dict[str, Any], sample: Sample, measured: Measured | None) -> None:
    assert Filters(**options).reject(sample, *([measured] if measured else [])) is None


def test_each_of_several_clips_is_held_against_the_limits_and_all_together_give_the_pace() -> None:
    filters = Filters(max_words_per_second=1.1, max_duration_s=6.0)
    assert filters.reject(ROW, CLIP, CLIP) is None
    assert filters.reject(ROW, CLIP, clip(duration_s=7.0)) == ("duration", "lasts 7.0 s, more than --max-duration-s 6")


@given(st.floats(0.1, 60), st.floats(0.1, 60))
def test_bounds_of_duration_are_inclusive_and_a_reason_never_contradicts_itself(duration_s: float, limit_s: float) -> None:
    filters = Filters(min_duration_s=0, max_duration_s=limit_s)
    verdict = filters.reject(ROW, clip(duration_s=duration_s))
    assert (verdict is None) == (duration_s <= limit_s)
    if verdict:
        assert float(verdict[1].split()[1]) > limit_s
    assert Filters(min_duration_s=0, max_duration_s=duration_s).reject(ROW, clip(duration_s=duration_s)) is None
    assert Filters(min_duration_s=duration_s, max_duration_s=None).reject(ROW, clip(duration_s=duration_s)) is None


LIMITS = {
    "min_duration_s": (st.floats(0, 10), -1),
    "max_duration_s": (st.floats(10, 60), 1),
    "min_words_per_second": (st.floats(0, 5), -1),
    "max_words_per_second": (st.floats(5, 20), 1),
    "max_wer": (st.floats(0, 200), 1),
    "max_loop": (st.integers(0, 9), 1),
    "max_compression": (st.floats(0, 9), 1),
    "min_level_db": (st.floats(-120, 0), -1),
    "max_clipped_share": (st.floats(0, 1), 1),
}


@given(
    st.fixed_dictionaries({name: values for name, (values, _) in LIMITS.items()}),
    st.sampled_from(sorted(LIMITS)),
    st.data(),
    st.lists(st.sampled_from(["the", "a", "cat"]), max_size=40).map(" ".join),
    st.floats(0.01, 60),
    st.floats(0, 200),
    st.floats(-120, 0),
    st.floats(0, 1),
)
def test_a_wider_limit_never_drops_a_row_that_a_narrower_one_keeps(
    limits: dict[str, float], name: str, data: Any, text: str, duration_s: float, wer: float, level_db: float, clipped: float
) -> None:
    values, towards_wider = LIMITS[name]
    wider = data.draw(values)
    assume((wider - limits[name]) * towards_wider >= 0)
    sample = row(text=text, label="SPEECH", extra={"wer_percent": wer})
    measured = clip(duration_s=duration_s, rms_dbfs=level_db, clipped_share=clipped)
    if Filters(**limits).reject(sample, measured) is None:
        assert Filters(**{**limits, name: wider}).reject(sample, measured) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_wer": -1.0}, "--max-wer -1: give 0 or more"),
        ({"max_wer": math.nan}, "--max-wer nan: give 0 or more"),
        ({"min_duration_s": 31.0}, "--min-duration-s 31 is above --max-duration-s 30: nothing would be left"),
        ({"min_words_per_second": 3.0, "max_words_per_second": 2.0}, "--min-words-per-second 3 is above"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Filters(**options)


# Repeated texts


def test_the_first_rows_of_a_text_stay_whatever_its_case_and_spaces() -> None:
    repeats = TextRepeats(2)
    texts = ["Thank you.", "thank  YOU.", "thanks", "THANK you.\n", "thanks"]
    assert [repeats.reject(row(text=text)) is None for text in texts] == [True, True, True, False, True]
    assert repeats.reject(row(text="thank you.")) == ("repeated", "its text was kept 2 times already, which is --max-repeats")
    assert all(repeats.reject(row(text=text)) is None for text in ["", None, " "] * 3)


@given(st.lists(st.sampled_from(["a", "A ", "b", "c d", "c  D", ""])), st.integers(0, 3), st.data())
def test_after_an_interruption_the_same_rows_stay(texts: list[str], limit: int, data: Any) -> None:
    whole = TextRepeats(limit)
    kept = [whole.reject(row(text=text)) is None for text in texts]
    cut = data.draw(st.integers(0, len(texts)))
    resumed = TextRepeats(limit)
    assert all(resumed.reject(row(text=text)) is None for text, stays in zip(texts[:cut], kept[:cut], strict=True) if stays)
    assert [resumed.reject(row(text=text)) is None for text in texts[cut:]] == kept[cut:]
    most = Counter(same_text(text) for text, stays in zip(texts, kept, strict=True) if stays and text)
    assert max(most.values(), default=0) <= limit


@given(st.lists(st.text(st.characters(), max_size=3), max_size=200))
def test_the_counter_counts_like_a_dict(texts: list[str]) -> None:
    counter, expected = HashCounter(), Counter[str]()
    for text in texts:
        expected[text] += 1
        assert counter.add(text) == expected[text]
    assert len(counter) == len(expected)
    assert all(counter.count(text) == times for text, times in expected.items())
    assert counter.count("not among them") == 0


def test_the_counter_needs_few_bytes_a_text() -> None:
    tracemalloc.start()
    counter = HashCounter()
    for number in range(20_000):
        counter.add(f"text {number}")
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(counter) == 20_000
    assert counter.count("text 7") == 1
    assert held_bytes < 37 * 20_000


# Loops within a text


@pytest.mark.parametrize(
    ("text", "phrase", "times"),
    [
        ("", "", 0),
        ("...", "", 0),
        ("one two", "one", 1),
        ("no no", "no", 2),
        ("no no no no no no", "no", 6),
        ("thank you thank you thank you", "thank you", 3),
        ("and so, I see. I see! I SEE", "i see", 3),
        ("to be or not to be or not to be", "to be or not", 2),
        ("don't don't", "don't", 2),
        ("one two three four five six seven eight nine " * 2, "one", 1),
    ],
)
def test_the_longest_loop_is_found(text: str, phrase: str, times: int) -> None:
    assert longest_loop(text) == (phrase, times)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True), st.integers(1, 9))
def test_a_phrase_said_n_times_is_a_loop_of_n(words: list[str], times: int) -> None:
    assert longest_loop(" ".join(words * times))[1] == times
    assert longest_loop(" ".join(["x", *words * times, "y"]))[1] == times


def test_compression_is_that_of_whisper() -> None:
    assert compression("") == 0
    assert compression("thank you for watching " * 20) > 2.4
    assert compression("where did frank put the golden shirt and the table") < 2.4


# Languages


@pytest.mark.parametrize("name", ["en", "EN", "en-US", "en_GB", "eng", "English", " english ", "en-Latn-US"])
def test_english_by_any_name(name: str) -> None:
    assert language_code(name) == "en"


@pytest.mark.parametrize(
    ("name", "code"), [("Français", "fr"), ("zh-CN", "zh"), ("cmn", "zh"), ("sv-SE", "sv"), ("xx-YY", "xx"), ("Klingon", "klingon")]
)
def test_other_languages(name: str, code: str) -> None:
    assert language_code(name) == code
