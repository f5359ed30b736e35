"""Drawing clips: the same again, in proportion, without favour, and kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import audit_run

from audiograft.audit.run import AuditRun
from audiograft.audit.sampling import restore_sample, sample_clips, save_sample
from audiograft.types import ConfigError, DataError

TEN = "a b c d e f g h i j"
HYPOTHESES = {0.0: TEN, 0.1: "x b c d e f g h i j", 0.2: "x x c d e f g h i j", 0.5: "x x x x x f g h i j", 1.0: "x"}


def run_of(folder: Path, **counts: int) -> AuditRun:
    """A run with so many clips of each WER, such as `w0=5`, `w10=2`; the kinds alternate."""
    rows = [(f"{name}-{number}", TEN, HYPOTHESES[int(name[1:]) / 100]) for name, count in counts.items() for number in range(count)]
    return audit_run(folder, *sorted(rows, key=lambda row: row[0].partition("-")[2]))


def ids(run: AuditRun) -> list[str]:
    return [clip.prediction.id for clip in run.clips]


def test_the_same_seed_draws_the_same_clips_in_the_runs_order(tmp_path: Path) -> None:
    run = run_of(tmp_path, w0=30, w50=20)
    drawn = sample_clips(run, 10, 7, stratify=False)
    assert ids(drawn) == ids(sample_clips(run, 10, 7, stratify=False))
    assert ids(drawn) != ids(sample_clips(run, 10, 8, stratify=False))
    assert [clip.index for clip in drawn.clips] == list(range(10))
    assert ids(drawn) == [id_ for id_ in ids(run) if id_ in set(ids(drawn))]
    assert drawn.sample is not None
    assert (drawn.sample.n, drawn.sample.of, drawn.sample.is_stratified, drawn.sample.ids) == (10, 50, False, tuple(ids(drawn)))


def test_a_larger_sample_holds_the_smaller_one(tmp_path: Path) -> None:
    run = run_of(tmp_path, w0=30, w50=20)
    samples = [set(ids(sample_clips(run, n, 0, stratify=False))) for n in range(1, 51)]
    assert all(small < large for small, large in zip(samples, samples[1:], strict=False))


def test_every_clip_is_drawn_equally_often(tmp_path: Path) -> None:
    run = run_of(tmp_path, w0=20)
    drawn = Counter(id_ for seed in range(1000) for id_ in ids(sample_clips(run, 5, seed, stratify=False)))
    assert len(drawn) == 20
    assert all(190 <= count <= 310 for count in drawn.values())  # 250 expected, standard deviation 14


def test_strata_are_drawn_from_in_proportion(tmp_path: Path) -> None:
    run = run_of(tmp_path, w0=50, w10=20, w20=10, w50=10, w100=10)
    drawn = sample_clips(run, 20, 0, stratify=True)
    assert Counter(id_.partition("-")[0] for id_ in ids(drawn)) == {"w0": 10, "w10": 4, "w20": 2, "w50": 2, "w100": 2}
    assert drawn.sample is not None
    assert [(stratum.wer, stratum.clips, stratum.drawn) for stratum in drawn.sample.strata] == [
        ("0 %", 50, 10), ("up to 10 %", 20, 4), ("up to 25 %", 10, 2), ("up to 50 %", 10, 2), ("above 50 %", 10, 2),
    ]  # fmt: skip


@given(counts=st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any), share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_no_stratum_is_more_than_one_clip_off_its_share(tmp_path_factory: pytest.TempPathFactory, counts: list[int], share: float, seed: int) -> None:
    run = run_of(tmp_path_factory.mktemp("run"), **dict(zip(("w0", "w10", "w20", "w50", "w100"), counts, strict=True)))
    n = max(1, int(share * len(run.clips)))
    drawn = sample_clips(run, n, seed, stratify=True)
    assert len(set(ids(drawn))) == n
    assert drawn.sample is not None
    assert all(abs(stratum.drawn - n * stratum.clips / len(run.clips)) < 1 for stratum in drawn.sample.strata)


@pytest.mark.parametrize("n", [0, 4])
def test_more_clips_than_there_are_can_not_be_drawn(tmp_path: Path, n: int) -> None:
    with pytest.raises(ConfigError, match=f"--sample {n}: the run has 3 clips that can be judged: draw between 1 and 3"):
        sample_clips(run_of(tmp_path, w0=3), n, 0, stratify=False)


@pytest.mark.parametrize("stratify", [True, False])
def test_a_sample_is_kept_and_found_again(tmp_path: Path, stratify: bool) -> None:
    run = run_of(tmp_path, w0=10, w100=10)
    assert restore_sample(run) is run
    drawn = sample_clips(run, 5, 3, stratify)
    save_sample(drawn)
    assert restore_sample(run) == drawn
    told = json.loads((tmp_path / "audit.json").read_text())
    assert (told["run"], told["n"], told["seed"], told["of"], told["ids"]) == (run.fingerprint, 5, 3, 20, ids(drawn))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"run": "f" * 16}, "drawn from other predictions"),
        ({"ids": ["w0-0", "gone"]}, "clip 'gone' is not in the run"),
        ({"ids": None}, "no record of a sample"),
        ({"seed": "seven"}, "no record of a sample"),
        (None, "no record of a sample"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_its_mend(tmp_path: Path, change: dict[str, object] | None, line: str) -> None:
    run = run_of(tmp_path, w0=10)
    save_sample(sample_clips(run, 2, 0, stratify=False))
    record = json.loads(run.sample_path.read_text())
    run.sample_path.write_text("{" if change is None else json.dumps(record | change))
    with pytest.raises(DataError, match=line) as caught:
        restore_sample(run)
    assert str(caught.value).endswith("draw again with --sample N, or see all clips with --all")
