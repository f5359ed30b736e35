"""The engine asks stock audio language models as it asks grafts: several clips, several turns, text alone, in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pytest

from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question

CLIPS: list[Any] = [(builders.tone(seconds, hz), 16_000) for seconds, hz in ((0.5, 300), (1.1, 900))]
TURNS = [
    {"role": "user", "content": "Who? <audio>"},
    {"role": "assistant", "content": "Ann."},
    {"role": "user", "content": "And <audio>?"},
]
QUESTIONS = [
    Question([CLIPS[0]], "What is said?"),
    Question(CLIPS, "Is <audio> like <audio>?"),
    Question([], "Two and two?"),
    Question(CLIPS, messages=TURNS),
]


@pytest.mark.parametrize("kind", ["qwen2_audio", "voxtral", "audioflamingo3", "granite_speech"])
def test_a_batch_of_questions_to_a_stock_model(tmp_path: Path, kind: str) -> None:
    engine = Engine.load(builders.stock_checkpoint(tmp_path, kind), device="cpu")
    together = [answer.text for answer in engine.ask_many(QUESTIONS, batch_size=4, max_new_tokens=4)]
    alone = [engine.ask(list(q.clips), q.prompt, messages=q.messages, max_new_tokens=4).text for q in QUESTIONS]
    assert together == alone
    words: list[str] = []
    assert engine.ask(CLIPS[0], "What is said?", max_new_tokens=4, stream=words.append).text == "".join(words) == alone[0]
    beams = engine.ask(CLIPS[0], "What is said?", max_new_tokens=4, num_beams=2).text
    assert [answer.text for answer in engine.ask_many(QUESTIONS[:1] * 2, max_new_tokens=4, num_beams=2)] == [beams] * 2
