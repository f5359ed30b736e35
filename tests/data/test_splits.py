"""Splits: no group in two of them, every row in one, and the shares as near as groups permit."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiograft.data.splits import Measure, RowKeys, assign, row_keys
from audiograft.types import DataError

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def keys(rows: list[tuple[int, int, str]]) -> list[RowKeys]:
    """(speaker, recording, label) -> keys."""
    return [RowKeys(f"r{n}", (("speaker", str(s)), ("recording", str(r))), label, 1000 + n) for n, (s, r, label) in enumerate(rows)]


corpora = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60), st.sampled_from("ab")), min_size=1, max_size=120).map(keys)


@settings(deadline=None, max_examples=150)
@given(rows=corpora, seed=st.integers(0, 99), measure=st.sampled_from(["rows", "hours"]))
def test_no_group_is_torn_apart_and_each_row_has_its_split(rows: list[RowKeys], seed: int, measure: Measure) -> None:
    try:
        splits = assign(rows, SHARES, seed=seed, measure=measure)
    except DataError:  # too few groups, which has a test of its own
        assume(False)
    homes: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for group in row.groups:
            homes.setdefault(group, set()).add(splits.of(row))
    assert all(len(names) == 1 for names in homes.values())
    assert {name: size.rows for name, size in splits.sizes.items()} == {name: sum(splits.of(row) == name for row in rows) for name in SHARES}
    assert all(size.rows for size in splits.sizes.values())
    assert sum(size.reached for size in splits.sizes.values()) == pytest.approx(1)
    shuffled = random.Random(seed).sample(rows, len(rows))
    again = assign(shuffled, SHARES, seed=seed, measure=measure)
    assert [again.of(row) for row in rows] == [splits.of(row) for row in rows]
    assert again.as_dict() == splits.as_dict()


def test_shares_are_reached_and_strata_spread() -> None:
    # 100 speakers of 3 to 12 rows; every fourth one is of the rare class.
    rng = random.Random(3)
    rows = keys([(s, 1000 + s, "rare" if s % 4 == 0 else "common") for s in range(100) for _ in range(rng.randint(3, 12))])
    splits = assign(rows, SHARES, seed=1)
    rare = sum(row.stratum == "rare" for row in rows)
    for name, share in SHARES.items():
        size = splits.sizes[name]
        assert size.reached == pytest.approx(share, abs=0.01)
        assert size.strata["rare"] == pytest.approx(share * rare, abs=4)
    assert splits.as_dict()["train"]["groups"] == splits.sizes["train"].groups


def test_hours_are_shared_out_where_they_are_the_measure() -> None:
    rows = [RowKeys(f"r{n}", (("speaker", str(n)),), "", 60_000 if n < 10 else 1_000) for n in range(610)]
    splits = assign(rows, {"train": 0.5, "test": 0.5}, measure="hours")
    assert [size.hours for size in splits.sizes.values()] == pytest.approx([10 / 60, 10 / 60], abs=0.01)
    assert splits.sizes["test"].reached == pytest.approx(0.5, abs=0.02)


def test_the_seed_decides() -> None:
    rows = keys([(s, 1000 + s, "") for s in range(50) for _ in range(s % 7 + 1)])
    tests = {seed: frozenset(row.groups[0] for row in rows if assign(rows, SHARES, seed=seed).of(row) == "test") for seed in range(4)}
    assert len(set(tests.values())) == 4


def test_a_chain_of_shared_rows_is_one_group() -> None:
    # Speaker 1 reads book 1, in which speaker 2 reads too, who also reads book 2: none of them may part.
    rows = keys([(1, 1, ""), (2, 1, ""), (2, 2, ""), (3, 3, ""), (4, 4, "")])
    splits = assign(rows, {"train": 0.6, "test": 0.4})
    assert len({splits.of(row) for row in rows[:3]}) == 1
    with pytest.raises(DataError, match=r"3 groups of rows that must not part can't make 4 splits \(a, b, c, d\): ask for fewer"):
        assign(rows, dict.fromkeys("abcd", 0.25))


def test_a_giant_group_leaves_no_split_empty() -> None:
    rows = keys([(1, 1, "")] * 500 + [(2, 2, "")] * 300 + [(3, 3, "")] * 200)
    assert all(size.rows for size in assign(rows, {"train": 0.98, "dev": 0.01, "test": 0.01}).sizes.values())


def test_keys_of_a_row() -> None:
    row = {"id": "a", "speaker": "19", "recording": "book", "label": 3, "duration_s": 1.5}
    assert row_keys(row, ("speaker", "recording"), "label") == RowKeys("a", (("speaker", "19"), ("recording", "book")), "3", 1500)
    with pytest.raises(DataError, match=r"""^row 'a' has no "session": group by other keys than session, or let the source name it$"""):
        row_keys(row, ("speaker", "session"))
    with pytest.raises(DataError, match="stratify by another key than accent"):
        row_keys(row, ("speaker",), "accent")


def test_hours_of_rows_without_durations() -> None:
    with pytest.raises(DataError, match="no row states its duration_s"):
        assign([RowKeys(f"r{n}", (("speaker", str(n)),)) for n in range(9)], SHARES, measure="hours")


def test_spaces_and_case_do_not_part_one_person() -> None:
    names = [" Bob ", "bob", "Ann", "ann  ", "Cy", "Di"]
    keys = [row_keys({"id": str(number), "speaker": name, "duration_s": 1.0}, ("speaker",)) for number, name in enumerate(names)]
    splits = assign(keys, {"train": 0.5, "test": 0.5}, seed=1)
    assert splits.of(keys[0]) == splits.of(keys[1])
    assert splits.of(keys[2]) == splits.of(keys[3])
