"""Kappa against published worked examples, and where it is not defined."""

from __future__ import annotations

import numpy as np
import pytest

from audiograft.metrics.agreement import cohen_kappa, fleiss_kappa

FLEISS_1971 = [
    [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0], [0, 0, 4, 0, 2], [2, 0, 3, 1, 0],
    [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0], [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1], [0, 0, 5, 0, 1],
    [3, 0, 0, 1, 2], [5, 1, 0, 0, 0], [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0],
    [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
]  # fmt: skip
"""30 patients, 6 psychiatrists, 5 diagnoses: table 1 of Fleiss 1971."""


def labels(table: list[list[int]]) -> tuple[list[str], list[str]]:
    """A table of counts as two raters' categories."""
    pairs = [(str(i), str(j)) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_fleiss_own_example() -> None:
    found = fleiss_kappa(FLEISS_1971)
    assert found.kappa == pytest.approx(0.430, abs=0.001)
    assert found.observed == pytest.approx(0.555, abs=0.001)
    assert found.n_clips == 30
    assert found.interval is not None
    assert found.interval.low < 0.43 < found.interval.high
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * 0.055, rel=0.25)  # the jackknife's standard error


def test_fleiss_example_of_ten_subjects_and_fourteen_raters() -> None:
    table = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
             [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    assert fleiss_kappa(np.array(table)).kappa == pytest.approx(0.210, abs=0.0005)


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ([[20, 5], [10, 15]], 0.4),
        ([[45, 15], [25, 15]], 0.1304),
        ([[25, 35], [5, 35]], 0.2593),
    ],
)
def test_cohens_worked_examples(table: list[list[int]], kappa: float) -> None:
    found = cohen_kappa(*labels(table))
    assert found.kappa == pytest.approx(kappa, abs=1e-4)
    assert found.observed == (table[0][0] + table[1][1]) / found.n_clips
    assert found.interval is not None
    assert -1 <= found.interval.low < kappa < found.interval.high <= 1


def test_the_interval_is_that_of_fleiss_cohen_and_everitt() -> None:
    """By their formula: 0.53, 0.05 and 0.02 agree of two categories of 3, n = 200 (Fleiss, Levin and Paik 2003, table 18.1)."""
    table = [[106, 10, 4], [22, 28, 10], [2, 12, 6]]
    found = cohen_kappa(*labels(table))
    assert found.kappa == pytest.approx(0.429, abs=0.001)
    assert found.interval is not None
    p = np.array(table) / 200
    rows, columns, expected = p.sum(1), p.sum(0), float(p.sum(1) @ p.sum(0))
    kappa = (np.trace(p) - expected) / (1 - expected)
    a = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(3))
    b = (1 - kappa) ** 2 * sum(p[i, j] * (columns[i] + rows[j]) ** 2 for i in range(3) for j in range(3) if i != j)
    error = np.sqrt(a + b - (kappa - expected * (1 - kappa)) ** 2) / ((1 - expected) * np.sqrt(200))
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.959964 * error)


def test_clips_that_one_rater_left_out_are_in_no_kappa() -> None:
    a, b = labels([[20, 5], [10, 15]])
    assert cohen_kappa([*a, "0", None], [*b, None, "1"]) == cohen_kappa(a, b)


def test_a_category_that_one_rater_never_gave_is_no_trouble() -> None:
    assert cohen_kappa(["x", "x", "y", "z"], ["x", "y", "y", "y"]).kappa == pytest.approx((0.5 - 0.3125) / (1 - 0.3125))


@pytest.mark.parametrize(
    ("a", "b", "kappa", "reason"),
    [
        ([], [], None, "no clip was judged by both"),
        (["x", None], [None, "x"], None, "no clip was judged by both"),
        (["x", "x"], ["x", "x"], None, "one category"),
        (["x", "y"], ["x", "y"], 1.0, "agree on every clip"),
        (["x"], ["y"], 0.0, "one clip alone"),
        (["x", "x", "x"], ["y", "y", "x"], 0.0, "a rater gave one category"),
    ],
)
def test_what_kappa_can_not_tell_has_a_reason(a: list[str | None], b: list[str | None], kappa: float | None, reason: str) -> None:
    found = cohen_kappa(a, b)
    assert (found.kappa, found.interval) == (kappa, None)
    assert reason in (found.reason or "")


@pytest.mark.parametrize(
    ("table", "kappa", "reason"),
    [
        ([], None, "no clip was judged by two"),
        ([[1, 0], [0, 1]], None, "no clip was judged by two"),
        ([[2, 1], [2, 0]], None, "2 to 3 verdicts"),
        ([[3, 0], [3, 0]], None, "one category"),
        ([[3, 0], [0, 3]], 1.0, "agree on every clip"),
        ([[1, 2]], -0.5, "one clip alone"),
    ],
)
def test_what_fleiss_can_not_tell_has_a_reason(table: list[list[int]], kappa: float | None, reason: str) -> None:
    found = fleiss_kappa(table)
    assert found.kappa == pytest.approx(kappa)
    assert found.interval is None
    assert reason in (found.reason or "")


def test_raters_of_unequal_numbers_of_clips_are_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="zip"):
        cohen_kappa(["x"], ["x", "y"])


def test_the_bootstrap_has_a_seed() -> None:
    assert fleiss_kappa(FLEISS_1971, resamples=50, seed=1) == fleiss_kappa(FLEISS_1971, resamples=50, seed=1)
    assert fleiss_kappa(FLEISS_1971, resamples=50, seed=1) != fleiss_kappa(FLEISS_1971, resamples=50, seed=2)
