"""Rows of two published systems, read as they are.

System A (Qwen2-VL-Audio-Adapter): `audio`, `ground_truth`, and `conversations` of one user turn, in which `<|audio_bos|><|AUDIO|><|audio_eos|>` is
the clip, and one assistant turn. System B (AudioLLM): `text` with `<audio>` markers is the prompt, `audio_paths` a path or a list, `response` the
answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from audiograft.messages import AUDIO_MARKER
from audiograft.types import DataError

_MARKER_A = re.compile(r"<\|audio_bos\|><\|AUDIO\|><\|audio_eos\|>")
_KEYS_A = ("id", "audio", "conversations", "ground_truth")
_KEYS_B = ("id", "audio_paths", "text", "response")


def is_foreign(row: Mapping[str, Any]) -> bool:
    """Whether a row is written in the keys of one of the two systems."""
    return "conversations" in row or "audio_paths" in row


def own_row(row: Mapping[str, Any], number: int, place: str) -> dict[str, Any]:
    """A row of a published system in our keys; others stay as they are.

    Args:
        row: as `json` reads it.
        number: its line; part of the id where the row has none, since several rows may be about one clip.
        place: file and line, for errors.

    Raises:
        DataError: a conversation that is not one question and its answer.
    """
    read, known = (_system_a, _KEYS_A) if "conversations" in row else (_system_b, _KEYS_B)
    own = read(row, place)
    clips = own["audio"] if isinstance(own["audio"], list) else [own["audio"]]
    named = "+".join(str(clip) for clip in clips if clip)
    own_id = row["id"] if row.get("id") is not None else f"{named}#{number}" if named else f"line-{number}"
    return {key: value for key, value in row.items() if key not in known} | own | {"id": str(own_id)}


def _system_a(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    turns = row["conversations"]
    try:
        (asked, question), (answered, answer) = [(turn["role"], turn["content"]) for turn in turns]
        prompt = _MARKER_A.sub(AUDIO_MARKER, question)
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f'{place}: "conversations" must be a user turn and an assistant turn, each with "role" and "content"') from error
    if (asked, answered) != ("user", "assistant"):
        raise DataError(f'{place}: "conversations" must be a user turn and an assistant turn, not {asked} and {answered}')
    return {"audio": row.get("audio"), "prompt": prompt, "response": answer, "text": row.get("ground_truth")}


def _system_b(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {"audio": row["audio_paths"], "prompt": row.get("text"), "response": row.get("response"), "text": None}
