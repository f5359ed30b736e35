"""RTTM: turns, broken lines by number, and what follows from turns; checked against a count of who speaks in each hundredth of a second."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.sources.cutting import pieces
from audiograft.data.sources.rttm import Turn, gaps, parse_rttm, single_turns, speech


def line(start: str, length: str, speaker: str = "spk00", recording: str = "abjxc") -> str:
    return f"SPEAKER {recording} 1 {start} {length} <NA> <NA> {speaker} <NA> <NA>"


def test_turns_are_read_in_order_of_time() -> None:
    text = "\n".join(
        [";; comment", line("8.680000", "55.960000", "spk01"), "", "SPKR-INFO abjxc 1 <NA> <NA> <NA> unknown spk00", line("0.4", "6.64")]
    )
    turns, broken = parse_rttm(text.encode(), "abjxc", "abjxc.rttm")
    assert broken == []
    assert [(turn.start_s, turn.speaker) for turn in turns] == [(0.4, "spk00"), (8.68, "spk01")]
    assert turns[0].end_s == pytest.approx(7.04)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (line("x", "1"), "'x' and '1' are not both seconds"),
        (line("-1", "2"), "begins at -1 s"),
        (line("1", "0"), "lasts 0 s"),
        (line("1", "-3"), "lasts -3 s"),
        (line("nan", "1"), "begins at nan s"),
        (line("1", "inf"), "lasts inf s"),
        (line("1", "1", recording="other"), "names the recording 'other' in the file of 'abjxc'"),
        (line("1", "1", speaker="<NA>"), "names no speaker"),
        ("SPEAKER abjxc 1 0.4", "no line of RTTM"),
        ("SPEAKR abjxc 1 1 1 <NA> <NA> spk00 <NA> <NA>", "no line of RTTM"),
        ("\N{REPLACEMENT CHARACTER}\0", "no line of RTTM"),
    ],
)
def test_a_broken_line_is_named_by_its_number_and_costs_no_other(text: str, why: str) -> None:
    turns, broken = parse_rttm(f"{line('1', '1')}\n{text}\n{line('3', '1')}\n".encode(), "abjxc", "dev/abjxc.rttm")
    assert len(turns) == 2
    assert len(broken) == 1
    assert broken[0].id == "dev/abjxc.rttm:2"
    assert broken[0].kind == "row"
    assert broken[0].reason.startswith("dev/abjxc.rttm:2: ")
    assert why in broken[0].reason
    assert "\n" not in broken[0].reason


def test_bytes_that_are_no_text_are_broken_lines() -> None:
    turns, broken = parse_rttm(line("1", "1").encode() + b"\n\xff\xfe\x00\n", "abjxc", "x")
    assert len(turns) == len(broken) == 1


turn_lists = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30), st.sampled_from("abc")), max_size=8)


def as_turns(drawn: Iterable[tuple[int, int, str]]) -> list[Turn]:
    return [Turn(float(start), float(start + length), speaker) for start, length, speaker in sorted(drawn)]


def heard_at(turns: Iterable[Turn], moment_s: float) -> set[str]:
    return {turn.speaker for turn in turns if turn.start_s <= moment_s < turn.end_s}


@given(turn_lists, st.booleans())
def test_speech_and_gaps_cover_each_moment_once(drawn: list[tuple[int, int, str]], overlap: bool) -> None:
    turns = as_turns(drawn)
    found, silent = speech(turns, overlap), list(gaps(turns, 100.0))
    for moment_s in (place + 0.5 for place in range(100)):
        heard = heard_at(turns, moment_s)
        inside = [part for part in found if part.start_s <= moment_s < part.end_s]
        assert len(inside) == (1 if heard and (overlap or len(heard) == 1) else 0)
        assert all(heard <= part.speakers for part in inside)
        assert sum(start_s <= moment_s < end_s for start_s, end_s in silent) == (0 if heard else 1)


@given(turn_lists)
def test_turns_without_overlap_are_where_nobody_else_speaks(drawn: list[tuple[int, int, str]]) -> None:
    turns = as_turns(drawn)
    found = single_turns(turns, overlap=False)
    for moment_s in (place + 0.5 for place in range(100)):
        heard = heard_at(turns, moment_s)
        inside = [part.speakers for part in found if part.start_s <= moment_s < part.end_s]
        assert (set().union(*inside) if inside else set()) == (heard if len(heard) == 1 else set())


def test_turns_with_overlap_are_as_they_were_annotated() -> None:
    turns = [Turn(0, 4, "a"), Turn(2, 6, "b")]
    assert [(part.start_s, part.end_s, set(part.speakers)) for part in single_turns(turns, overlap=True)] == [(0, 4, {"a"}), (2, 6, {"b"})]
    assert [(part.start_s, part.end_s, set(part.speakers)) for part in single_turns(turns, overlap=False)] == [(0, 2, {"a"}), (4, 6, {"b"})]


def test_as_many_pieces_as_fit() -> None:
    assert [round(start, 6) for start, _ in pieces(0.0, 0.3, 0.1)] == [0.0, 0.1, 0.2]
    assert list(pieces(1.0, 3.9, 1.5)) == [(1.0, 2.5)]
    assert list(pieces(2.0, 1.0, 0.5)) == []
