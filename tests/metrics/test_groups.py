"""Intervals over few groups hold the truth, where those over clips would not."""

from __future__ import annotations

import numpy as np
import pytest

from audiograft.metrics.groups import mean_over_groups


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        speakers, kinds = draw.normal(0.8, 0.05, 4), draw.normal(0.6, 0.1, 8)
        _, interval = mean_over_groups([speakers.tolist(), kinds.tolist()])
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= 0.7 <= interval.high
    assert held / 1000 == pytest.approx(0.95, abs=0.02)


def test_few_groups_are_called_so_and_alike_ones_have_no_interval() -> None:
    mean, interval = mean_over_groups([[0.9, 1.0], [1.0, 0.8]])
    assert mean == pytest.approx(0.925)
    assert interval.high == 1.0
    assert interval.warning == "4 groups, 2 of one class: the interval is wide and rough"
    assert mean_over_groups([[0.1, 0.2, 0.3] * 5] * 2)[1].warning is None
    alone, alike = mean_over_groups([[0.9, 1.0], [1.0]])[1], mean_over_groups([[1.0, 1.0], [0.5, 0.5]])[1]
    assert (alone.low, alone.warning) == (None, "one class has one group alone: how far others would differ can't be known")
    assert (alike.low, alike.warning) == (None, "all groups are alike: how far others would differ can't be known")
    assert mean_over_groups([[-0.9, -1.0]], lowest=-1.0)[1].low == -1.0
    with pytest.raises(ValueError, match="one class with one group at least"):
        mean_over_groups([[0.5], []])
