"""Bootstrap intervals: where they lie, how wide they are, and what they say of themselves."""

from __future__ import annotations

import numpy as np
import pytest

import audiograft.metrics.intervals as intervals
from audiograft.metrics.intervals import cluster_bootstrap
from audiograft.metrics.word_errors import ErrorCounts, corpus

SPEAKERS = [f"s{i // 10}" for i in range(80)]  # 8 speakers with 10 utterances each
BAD = ErrorCounts(hits=6, substitutions=4)
GOOD = ErrorCounts(hits=10)
SPREAD = [BAD if i % 10 < 2 else GOOD for i in range(80)]  # each speaker has 2 bad utterances
CONCENTRATED = [BAD if i < 16 else GOOD for i in range(80)]  # the same utterances, almost all of one speaker


def test_the_point_estimate_lies_inside() -> None:
    for counts in (SPREAD, CONCENTRATED):
        for clusters in (SPEAKERS, [None] * 80):
            interval = cluster_bootstrap(counts, clusters)
            assert interval.low <= corpus(counts).rate <= interval.high


def test_errors_of_one_speaker_widen_the_interval() -> None:
    spread, concentrated = cluster_bootstrap(SPREAD, SPEAKERS), cluster_bootstrap(CONCENTRATED, SPEAKERS)
    by_utterance = cluster_bootstrap(CONCENTRATED, [None] * 80)
    assert spread.high - spread.low == pytest.approx(0)  # every speaker has the same rate, so drawing others changes nothing
    assert concentrated.high - concentrated.low > 1.5 * (by_utterance.high - by_utterance.low)


def test_width_is_that_of_the_normal_approximation_for_many_utterances() -> None:
    rng = np.random.default_rng(3)
    counts = [ErrorCounts(hits=10 - errors, substitutions=errors) for errors in rng.binomial(10, 0.1, size=1000).tolist()]
    interval = cluster_bootstrap(counts, [None] * 1000, resamples=4000)
    deviation = np.std([count.rate for count in counts]) / np.sqrt(1000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * deviation, rel=0.06)


def test_two_clusters_give_the_three_rates_there_are() -> None:
    counts, clusters = [ErrorCounts(substitutions=1), ErrorCounts(hits=3)], ["a", "b"]
    interval = cluster_bootstrap(counts, clusters, confidence=0.95)
    assert (interval.low, interval.high) == (0.0, 1.0)  # aa and bb have a chance of 1/4 each
    middle = cluster_bootstrap(counts, clusters, confidence=0.2)
    assert (middle.low, middle.high) == (0.25, 0.25)  # ab weighs words: 1 error in 4


def test_it_says_how_it_was_made() -> None:
    interval = cluster_bootstrap(SPREAD, SPEAKERS, confidence=0.9)
    assert (interval.method, interval.n_clusters, interval.confidence) == ("cluster-bootstrap", 8, 0.9)


def test_a_single_speaker_falls_back_to_utterances_and_says_so() -> None:
    single, none = cluster_bootstrap(SPREAD, ["s0"] * 80), cluster_bootstrap(SPREAD, [None] * 80)
    assert single == none
    assert (single.method, single.n_clusters) == ("utterance-bootstrap", 80)
    assert single.low < single.high


def test_an_utterance_without_speaker_is_a_cluster_of_its_own() -> None:
    assert cluster_bootstrap(SPREAD, [None, None, *SPEAKERS[2:]]).n_clusters == 8 + 2
    assert cluster_bootstrap([GOOD, GOOD, BAD], ["2", "2", None]).n_clusters == 2


def test_the_same_seed_gives_the_same_interval() -> None:
    assert cluster_bootstrap(CONCENTRATED, SPEAKERS, seed=1) == cluster_bootstrap(CONCENTRATED, SPEAKERS, seed=1)
    assert cluster_bootstrap(CONCENTRATED, [None] * 80, seed=1) != cluster_bootstrap(CONCENTRATED, [None] * 80, seed=2)


def test_small_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cluster_bootstrap(CONCENTRATED, SPEAKERS)
    monkeypatch.setattr(intervals, "_BLOCK_DRAWS", 100)
    assert cluster_bootstrap(CONCENTRATED, SPEAKERS) == whole


def test_empty_references_alone_give_a_finite_interval() -> None:
    interval = cluster_bootstrap([ErrorCounts(insertions=1), ErrorCounts()], ["a", "b"])
    assert (interval.low, interval.high) == (0.0, 2.0)


@pytest.mark.parametrize("clusters", [[], ["a"]])
def test_lengths_that_differ_or_nothing_at_all_are_refused(clusters: list[str]) -> None:
    with pytest.raises(ValueError, match="one utterance at least"):
        cluster_bootstrap([GOOD] * (2 * len(clusters)), clusters)
