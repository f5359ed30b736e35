"""Seeds and splits taken apart."""

from __future__ import annotations

import numpy as np
import pytest

from audiograft.metrics.variance import variance_parts


def draw(rng: np.random.Generator, seeds: int, splits: int, sds: tuple[float, float, float]) -> np.ndarray:
    return 0.9 + rng.normal(0, sds[0], (seeds, 1)) + rng.normal(0, sds[1], (1, splits)) + rng.normal(0, sds[2], (seeds, splits))


def test_a_table_worked_by_hand() -> None:
    # Rows differ by 0.02, columns by 0.1, and there is nothing else.
    found = variance_parts(np.array([[0.80, 0.90], [0.82, 0.92]]))
    assert found.mean == pytest.approx(0.86)
    assert (found.seed_sd, found.split_sd) == (pytest.approx(np.sqrt(0.02**2 / 2)), pytest.approx(np.sqrt(0.1**2 / 2)))
    assert found.residual_sd == pytest.approx(0, abs=1e-9)
    assert found.total_sd == pytest.approx(np.hypot(found.seed_sd, found.split_sd))


def test_known_parts_are_found_on_average_and_the_mean_is_held() -> None:
    rng, sds = np.random.default_rng(0), (0.01, 0.02, 0.01)
    found = [variance_parts(draw(rng, 5, 5, sds)) for _ in range(600)]
    means = [np.sqrt(np.mean([getattr(one, name) ** 2 for one in found])) for name in ("seed_sd", "split_sd", "residual_sd")]
    assert means == pytest.approx(sds, rel=0.1)
    assert 0.92 <= np.mean([one.interval.low <= 0.9 <= one.interval.high for one in found]) <= 0.98


def test_parts_that_are_not_there_are_0() -> None:
    found = variance_parts(draw(np.random.default_rng(1), 4, 4, (0.0, 0.05, 0.001)))
    assert found.seed_sd < 0.003 < found.split_sd
    assert found.interval.high - found.interval.low > 0.05  # since a new split is another draw
    noise = [variance_parts(draw(np.random.default_rng(seed), 3, 3, (0.0, 0.0, 0.02))) for seed in range(40)]
    assert any(one.seed_sd == one.split_sd == 0 for one in noise)
    assert all(one.interval.low < one.mean < one.interval.high for one in noise)


def test_equal_runs_on_one_split_are_no_proof_of_stability() -> None:
    """System C: five seeds on one split of 32 clips, all with the same accuracy, and an interval without width."""
    found = variance_parts(np.full((5, 1), 31 / 32), n_test_clips=32)
    assert (found.interval.low, found.interval.high, found.split_sd, found.residual_sd) == (None, None, None, None)
    assert found.interval.warning == "one split alone: how far results vary with the data is not known"
    assert found.one_clip == 1 / 32
    assert found.notes[-1] == "all runs have the same accuracy: that is no proof of stability, since one test clip is 3.1 points"


def test_equal_runs_have_an_interval_without_ends() -> None:
    found = variance_parts(np.full((4, 4), 0.9))
    assert (found.interval.low, found.interval.warning[:18]) == (None, "all runs are alike")
    assert found.notes == ("all runs have the same accuracy: that is no proof of stability",)


def test_differences_of_less_than_a_clip_are_called_so() -> None:
    found = variance_parts(np.array([[0.90, 0.91], [0.91, 0.90]]), n_test_clips=50)
    assert found.notes == (
        "2 seeds and 2 splits are too few to part the variance, and an sd of 0 is no finding: 4 of each tell more",
        "runs differ by less than one test clip: one test clip is 2 points",
    )
    assert variance_parts(np.tile([[0.90, 0.91], [0.91, 0.90]], (2, 2)), n_test_clips=5000).notes == ()


@pytest.mark.parametrize(("shape", "known", "missing"), [((1, 4), "split_sd", "seed_sd"), ((4, 1), "seed_sd", "split_sd")])
def test_one_seed_or_one_split_leaves_the_other_part_unknown(shape: tuple[int, int], known: str, missing: str) -> None:
    found = variance_parts(np.array([0.9, 0.92, 0.94, 0.96]).reshape(shape))
    assert getattr(found, known) == pytest.approx(np.std([0.9, 0.92, 0.94, 0.96], ddof=1))
    assert getattr(found, missing) is None
    assert found.interval.low is None


def test_one_run_has_no_spread_at_all() -> None:
    found = variance_parts(np.array([[0.9]]), 100)
    assert (found.mean, found.total_sd, found.notes) == (0.9, None, ("one run alone: how far results vary is not known",))


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.array([0.9, 0.8]), np.array([[0.9, np.nan]])])
def test_what_is_no_table_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="seeds x splits"):
        variance_parts(values)
