from __future__ import annotations

import builders
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.shuffling import derangement
from audiograft.train.deafness import Condition, DeafnessReport, check_deafness
from audiograft.train.rows import index_rows, load_clips, read_samples
from audiograft.train.validation import score


@given(count=st.integers(2, 60), seed=st.integers(0, 2**31))
def test_no_clip_keeps_its_own_audio(count: int, seed: int) -> None:
    order = derangement(count, seed)
    assert sorted(order) == list(range(count))
    assert all(own != other for own, other in enumerate(order))


@pytest.mark.parametrize(
    ("p_value", "wers", "deaf"),
    [(0.001, (0.1, 0.9), False), (0.01, (0.1, 0.9), True), (0.001, (0.5, 0.5), True), (0.5, (0.9, 0.1), True)],
)
def test_a_model_listens_where_both_loss_and_wer_say_so(p_value: float, wers: tuple[float, float], deaf: bool) -> None:
    conditions = (Condition("true", 1.0, wers[0]), Condition("shuffled", 2.0, wers[1]), Condition("silence", 2.0, 1.0))
    assert DeafnessReport(conditions, p_value, clips=8, source="validation").deaf is deaf


def test_a_projector_of_zeros_is_deaf(clips) -> None:
    model, processor = builders.graft()
    with torch.no_grad():
        model.projector.linear_2.weight.zero_()
    rows, _ = index_rows(read_samples([str(clips)], None), processor)
    report = check_deafness(model, processor, rows, "validation", permutations=200, seed=0)
    assert report.deaf
    # Clips are equally long, so that nothing at all differs.
    assert len({condition.loss for condition in report.conditions}) == 1


def test_losses_of_clips_are_those_of_batches_of_one(clips) -> None:
    model, processor = builders.graft()
    rows, _ = index_rows(read_samples([str(clips)], None), processor)
    waveforms = [load_clips(row) for row in rows]
    together = score(model.train(), processor, rows, waveforms)
    assert model.training
    alone = [score(model, processor, [row], [waveform]) for row, waveform in zip(rows, waveforms, strict=True)]
    assert together.losses == pytest.approx([item.losses[0] for item in alone], abs=1e-5)
    assert together.hypotheses == [item.hypotheses[0] for item in alone]
    summed = sum(item.losses[0] * item.answer_tokens[0] for item in alone)
    assert together.loss == pytest.approx(summed / sum(together.answer_tokens), abs=1e-5)
