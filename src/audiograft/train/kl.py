"""`loss: kl`: the language model that reads the transcript teaches the same language model that hears the clip (as Ultravox does).

The teacher is the student without its adapters and with text in the clip's place, so that it costs no second model. What is learnt is to answer to
speech as one answers to text: nothing has to be known about right answers, and what the language model can do it keeps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiograft.data.counting import HashCounter
from audiograft.inference.decoding import Request, write_answers
from audiograft.messages import Message, conversation
from audiograft.model.lora import lora_disabled
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.train.batching import muted
from audiograft.train.checkpoints import writing
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.index import Answers, RowIndex
from audiograft.train.pictures import Pictures, has_pictures, load_pictures
from audiograft.train.rows import Row, tokens
from audiograft.train.validation import evaluating
from audiograft.types import AudiograftError, DataError, Rejection

RESPONSES = "responses.jsonl"
"""In output_dir: what the teacher answered to rows without a response of their own."""
_PREFIX = "teacher_"
_MAX_NEW_TOKENS = 256
_BATCH_ROWS = 16


def readable(sample: Any) -> list[Message]:
    """A row's conversation with its transcript where the clip was; pictures stay where they are."""
    return [{**message, "content": _read_out(message["content"], sample.text)} for message in conversation(sample)]


def _read_out(content: Any, transcript: str | None) -> Any:
    """The content of a message without audio parts: a text, or parts where there are pictures."""
    if isinstance(content, str):
        return content
    parts: list[Message] = []
    for part in content:
        part = {"type": "text", "text": transcript} if part["type"] == "audio" else part
        if parts and part["type"] == parts[-1]["type"] == "text":
            part = {"type": "text", "text": parts.pop()["text"] + part["text"]}
        parts.append(part)
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def can_be_taught(row: Row) -> Rejection | None:
    """Why a row is of no use for this loss; None where it is."""
    sample = row.sample
    if len(sample.clips) > 1:
        return Rejection(sample.id, sample.audio, "loss: kl puts one transcript in the place of one clip, and the row has several", "row")
    if sample.clips and sample.text is None:
        return Rejection(sample.id, sample.audio, "loss: kl needs what is said for the teacher to read: add text to the row", "text")
    return None


@dataclass(frozen=True)
class Responses:
    """What the teacher answered, by what it read; the texts stay in their file.

    Attributes:
        path: of responses.jsonl.
        offsets: where in it each answer begins, by the digest of what was read.
    """

    path: Path
    offsets: dict[bytes, int]

    def offset(self, row: Row) -> int:
        """Where the answer to a row begins; -1 where it has a response of its own."""
        return self.offsets[bytes.fromhex(_key(row))] if row.sample.response is None else -1

    def lacks(self, row: Row) -> bool:
        """Whether the teacher has to be asked."""
        return row.sample.response is None and bytes.fromhex(_key(row)) not in self.offsets


def with_responses(
    model: Any, processor: Any, rows: Sequence[Row], output_dir: Path, teacher: str, write: bool, on_row: Callable[[], None] = lambda: None
) -> Sequence[Row]:
    """Rows that have no response get the teacher's own greedy one; those of an earlier start of the same run are read again.

    Args:
        model: before it has adapters, on the device where it is to compute.
        processor: its processor.
        rows: all that will be used. Of an index there comes an index.
        output_dir: where responses.jsonl is.
        teacher: identifies the model; responses of another are not used.
        write: whether this process asks and writes the file; others only read it.
        on_row: called after each row that is asked.

    Raises:
        DataError: responses.jsonl is damaged, or lacks answers that this process can't write.
    """
    responses = Responses(output_dir / RESPONSES, _read(output_dir / RESPONSES, teacher, mend=write))
    missing = filter(responses.lacks, rows)
    with evaluating(model):
        while batch := _next_batch(missing, responses):
            if not write:
                raise DataError(f"{responses.path}: lacks answers that the first process wrote: put output_dir on a disk that all nodes share")
            seen = [load_pictures(row.sample) for row in batch.values()]
            requests = [
                Request(readable(row.sample), [], _MAX_NEW_TOKENS, images=own.images, videos=own.videos)
                for row, own in zip(batch.values(), seen, strict=True)
            ]
            texts = [answer.text for answer in write_answers(model, processor, requests, batch_size=_BATCH_ROWS)]
            with writing(output_dir, RESPONSES), responses.path.open("ab") as file:
                for key, text in zip(batch, texts, strict=True):
                    responses.offsets[bytes.fromhex(key)] = file.tell()
                    line = json.dumps({"teacher": teacher, "row": key, "response": text}, ensure_ascii=False) + "\n"
                    file.write(line.encode(errors="backslashreplace"))
            for _ in batch:
                on_row()
    answers = Answers(responses.path, np.fromiter(map(responses.offset, rows), dtype=np.int64, count=len(rows)))
    answered = (_answered(row, answers.of(number), processor) for number, row in enumerate(rows))
    if isinstance(rows, RowIndex):
        return rows.with_answers(answers, np.fromiter((row.positions for row in answered), dtype=np.int64, count=len(rows)))
    return list(answered)


def _next_batch(missing: Iterator[Row], responses: Responses) -> dict[str, Row]:
    """Some rows to ask about, each but once."""
    batch: dict[str, Row] = {}
    for row in missing:
        batch[_key(row)] = row
        if len(batch) == _BATCH_ROWS:
            break
    return batch


def _answered(row: Row, response: str | None, processor: Any) -> Row:
    if response is None:
        return row
    row = replace(row, sample=replace(row.sample, response=response))
    return replace(row, positions=len(tokens(row, row.feature_frames, processor, load_pictures(row.sample))["input_ids"]))


def unanswered(rows: Iterable[Row]) -> int:
    """How many different answers have to be had from the teacher, or are kept of it."""
    found = HashCounter()
    return sum(found.add(_key(row)) == 1 for row in rows if row.sample.response is None)


def responses_sha256(rows: Iterable[Row]) -> str:
    """Of the responses that are learnt, which belong to a run's identity."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.sample.response).encode() + b"\n")
    return digest.hexdigest()


def _key(row: Row) -> str:
    """Of what the teacher reads and sees."""
    read = json.dumps(readable(row.sample))
    if has_pictures(row.sample):  # the checksum knows what they show
        read += json.dumps([row.sample.images, row.sample.videos, row.checksum])
    return hashlib.sha256(read.encode()).hexdigest()


def _read(path: Path, teacher: str, mend: bool) -> dict[bytes, int]:
    """Where the answers of this teacher begin. A last line without its end, of a start that was killed, is left out, and with `mend` cut off."""
    found: dict[bytes, int] = {}
    if not path.is_file():
        return found
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                if row["teacher"] == teacher and isinstance(row["response"], str):
                    found[bytes.fromhex(row["row"])] = offset
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}: line {number} is damaged: delete the file, and the teacher is asked again") from error
            offset += len(line)
    if mend and offset != path.stat().st_size:
        with writing(path.parent, RESPONSES):
            os.truncate(path, offset)
    return found


class DistillationDataset(SpeechDataset):
    """Training examples with what the teacher reads and sees, which is an example without audio, under the key `teacher`."""

    def _example(self, index: int, row: Row, seen: Pictures) -> dict[str, Any]:
        heard = super()._example(index, row, seen)
        inputs = self.processor.training_inputs(readable(row.sample), row.target, [], images=seen.images, videos=seen.videos)
        read = {"id": row.sample.id, **inputs, "feature_frames": [], "audio_s": 0.0}
        return heard | {"teacher": muted(read) if "lost" in heard else read}

    def _blank(self, row: Row, error: DataError) -> dict[str, Any]:
        blank = super()._blank(row, error)
        return blank | {"teacher": blank}


class DistillationCollator(Collator):
    """Adds `teacher_input_ids`, `teacher_attention_mask` and `teacher_labels`, (rows, the teacher's positions), and its pictures to a batch."""

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        read = super().__call__([item["teacher"] for item in items])
        return super().__call__(items) | {f"{_PREFIX}{name}": value for name, value in read.items() if isinstance(value, Tensor)}


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student), summed over tokens: Hinton et al. 2015, arXiv:1503.02531.

    Args:
        student_logits: (response tokens, vocabulary).
        teacher_logits: likewise, of the same tokens.
        temperature: divides both; the loss is multiplied by its square, so that gradients keep their size.
    """
    student = nn.functional.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = nn.functional.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return nn.functional.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and adapters; each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), lora_disabled(model):
            yield
    finally:
        for module, training in modes:
            module.training = training


def taught(model: Any, core: Any, inputs: dict[str, Any], temperature: float) -> Callable[..., Any]:
    """Takes the teacher's part out of a batch, lets the teacher read it, and gives the model with this loss in place of its own.

    Args:
        model: the student, as the Trainer calls it.
        core: the same model without what stands around it.
        inputs: a batch of `DistillationCollator`; the keys that begin with `teacher_` are taken out.
        temperature: see `distillation_loss`.
    """
    text = {name.removeprefix(_PREFIX): inputs.pop(name) for name in list(inputs) if name.startswith(_PREFIX)}
    same = torch.equal(inputs["labels"][inputs["labels"] != IGNORE_INDEX], text["labels"][text["labels"] != IGNORE_INDEX])
    if not same:
        raise AudiograftError("loss: kl: teacher and student have different response tokens: report this with the model's name")
    with _as_it_was(core):
        teacher_logits = core(**text).logits

    def student(num_items_in_batch: Tensor | int | None = None, **batch: Any) -> Any:
        output = model(**batch, num_items_in_batch=num_items_in_batch)
        loss = distillation_loss(output.logits, teacher_logits, temperature)
        output["loss"] = loss / (max(len(teacher_logits), 1) if num_items_in_batch is None else num_items_in_batch)
        return output

    return student
