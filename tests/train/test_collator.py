from __future__ import annotations

import builders
import torch

from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.rows import index_rows, read_samples


def batch_of(graft, tmp_path, texts):
    waveforms = [builders.tone(0.2 + 0.3 * number, seed=number) for number in range(len(texts))]
    samples = read_samples([str(builders.write_clips(tmp_path, waveforms, texts))], None)
    dataset = SpeechDataset(index_rows(samples, graft[1])[0], graft[1])
    items = [dataset[index] for index in range(len(texts))]
    return Collator(graft[1])(items), items


def test_loss_is_on_the_response_and_the_end_of_turn_alone(graft, tmp_path) -> None:
    processor = graft[1]
    texts = ["one two", "three", "transcribe the audio or not"]
    batch, _ = batch_of(graft, tmp_path, texts)
    for row, text in enumerate(texts):
        labels = batch["labels"][row]
        carrying = labels != -100
        assert torch.equal(labels[carrying], batch["input_ids"][row][carrying])
        assert processor.tokenizer.decode(labels[carrying]) == f"{text}<|im_end|>"
        # One span, behind which there are pads alone.
        first, last = carrying.nonzero()[0].item(), carrying.nonzero()[-1].item()
        assert carrying[first : last + 1].all()
        assert batch["attention_mask"][row].sum() == last + 1


def test_padding_inside_a_batch_changes_no_loss(graft, tmp_path) -> None:
    model, processor = graft
    batch, items = batch_of(graft, tmp_path, ["one", "two three four", "five six"])
    together = _loss_sum(model, batch)
    alone = sum(_loss_sum(model, Collator(processor)([item])) for item in items)
    assert abs(together - alone) < 1e-3


def _loss_sum(model, batch) -> float:
    inputs = {name: tensor for name, tensor in batch.items() if isinstance(tensor, torch.Tensor)}
    with torch.no_grad():
        return float(model(**inputs, num_items_in_batch=1).loss)


def test_the_batch_says_whose_it_is_and_how_long(graft, tmp_path) -> None:
    batch, _ = batch_of(graft, tmp_path, ["one", "two"])
    assert batch["ids"] == ["clip-0", "clip-1"]
    assert abs(batch["audio_s"] - 0.7) < 1e-6
