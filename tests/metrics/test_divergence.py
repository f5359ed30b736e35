"""KL divergence against torch, against arithmetic of many digits, and what must hold of it whatever the logits are."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from audiograft.metrics.divergence import divergence, mean_divergence

LOGITS = arrays.arrays(np.float64, (2, 3, 7), elements=st.floats(-30, 30, width=32))


def exact_kl(base: np.ndarray, other: np.ndarray) -> float:
    """KL of one row, in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        logs = []
        for row in (base, other):
            exponentials = [Decimal(float(x)).exp() for x in row]
            logs.append([(e / sum(exponentials)).ln() for e in exponentials])
        return float(sum(p.exp() * (p - q) for p, q in zip(*logs, strict=True)))


@settings(max_examples=100, deadline=None)
@given(LOGITS)
def test_it_is_never_negative_and_as_torch_has_it(pair: np.ndarray) -> None:
    base, other = pair
    found = divergence(base, other)
    assert all(value >= 0 for value in found.kl)
    logs = [torch.log_softmax(torch.from_numpy(half), dim=-1) for half in (base, other)]
    wanted = torch.nn.functional.kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(-1)
    assert found.kl == pytest.approx(wanted.tolist(), abs=1e-12)
    assert list(found.top1) == (base.argmax(1) == other.argmax(1)).tolist()


@settings(max_examples=100, deadline=None)
@given(LOGITS, st.integers(-20, 20))
def test_a_shift_of_all_logits_changes_nothing_but_that_they_are_equal(pair: np.ndarray, shift: int) -> None:
    base, other = pair
    assert divergence(base, other + shift).kl == pytest.approx(divergence(base, other).kl, abs=1e-11)
    itself = divergence(base, base + shift)
    assert itself.kl == pytest.approx([0, 0, 0], abs=1e-24)
    same = divergence(base, base)
    assert (same.kl, same.top1, same.equal) == ((0.0,) * 3, (True,) * 3, True)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float64, 7, elements=st.floats(-10, 10, width=32)),
    st.integers(0, 6),
    st.floats(1e-7, 8.0),
    st.sampled_from([-1, 1]),
)
def test_it_is_above_0_wherever_they_differ_and_has_all_its_digits(row: np.ndarray, place: int, by: float, sign: int) -> None:
    other = row.copy()
    other[place] += sign * by
    found = divergence(row[None], other[None])
    assert not found.equal
    assert found.kl[0] > 0
    # Where it is tiny too: of differences by 1e-7 the plain sum would have no digit right.
    assert found.kl[0] == pytest.approx(exact_kl(row, other), rel=1e-5, abs=1e-25)


def test_far_apart_is_finite() -> None:
    found = divergence([[2000.0, 0.0]], [[0.0, 2000.0]])
    assert found.kl == (2000.0,)
    assert found.top1 == (False,)


@pytest.mark.parametrize(
    ("base", "other"), [([[0.0, math.nan]], [[0.0, 1.0]]), ([[0.0, 1.0]], [[0.0, math.inf]]), ([[0.0]], [[0.0, 1.0]]), ([], []), ([0.0], [0.0])]
)
def test_what_is_no_pair_of_tables_is_refused(base: list[list[float]], other: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="finite|of the same tokens"):
        divergence(base, other)


def test_the_mean_weighs_tokens_and_its_interval_draws_clusters() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 6, 60).tolist()
    sums = [float(rng.gamma(2.0, 0.01, n).sum()) for n in tokens]
    alone = mean_divergence(sums, tokens, [None] * 60, "picture")
    mean = sum(sums) / sum(tokens)
    assert alone.low is not None
    assert alone.high is not None
    assert 0 < alone.low < mean < alone.high
    assert (alone.n_clusters, alone.method) == (60, "utterance-bootstrap-t")
    # Four questions about each picture, all alike, are no more than one.
    four = mean_divergence([s for s in sums for _ in range(4)], [n for n in tokens for _ in range(4)], [str(i // 4) for i in range(240)], "picture")
    assert four.n_clusters == 60
    assert four.low == pytest.approx(alone.low, rel=0.05)
    assert four.high == pytest.approx(alone.high, rel=0.05)


def test_without_any_divergence_the_interval_has_no_ends() -> None:
    found = mean_divergence([0.0, 0.0], [2, 3], [None, None], "picture")
    assert (found.low, found.high, found.method) == (None, None, "none")
    assert "0 at every token" in str(found.warning)
    with pytest.raises(ValueError, match="as many"):
        mean_divergence([], [], [], "picture")
