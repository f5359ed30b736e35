"""Conversations, and where clips stand in them: text with `<audio>` markers becomes content parts. Knows no tokens.

A conversation is a list of messages as chat templates take them: `{"role": ..., "content": ...}` with the roles system, user and assistant. The
content is text, or a list of the parts `{"type": "text", "text": ...}` and `{"type": "audio"}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from audiograft.types import DataError, Sample

Message = dict[str, Any]

AUDIO_MARKER = "<audio>"
"""A clip's place in a text; `<audio></audio>` means the same."""
ROLES = ("system", "user", "assistant")
_MARKER = re.compile(r"<audio>(?:</audio>)?")
_CLIP: Message = {"type": "audio"}


def audio_messages(prompt: str, n_clips: int = 1) -> list[Message]:
    """One user turn with the clips where its markers put them; without markers they come first, the prompt on a line of its own.

    An empty prompt gives the clips alone: whatever is asked is asked in them.

    Raises:
        DataError: as many markers as clips are needed, or none; the message has both counts.
    """
    return place_clips([{"role": "user", "content": prompt}], n_clips)


def place_clips(messages: Sequence[Message], n_clips: int) -> list[Message]:
    """The conversation with its markers as parts, one `{"type": "audio"}` a clip.

    Without any marker or audio part, the clips stand in front of the first user turn. What the assistant said is taken literally, and so is the
    text of a part.

    Raises:
        DataError: as many markers as clips are needed, or none; the message has both counts.
    """
    placed = [{**message, "content": _parts(message["content"])} if _may_hold_clips(message) else message for message in messages]
    marked = count_clips(placed)
    if marked == 0 and n_clips:
        first = next(message for message in placed if message["role"] == "user")
        first["content"] = [_CLIP] * n_clips + _on_a_new_line(first["content"])
    elif marked != n_clips:
        raise DataError(
            f"{_counted(marked, f'{AUDIO_MARKER} marker')} in the prompt but {_counted(n_clips, 'clip')}: "
            "write one marker a clip, or none to put the clips first"
        )
    return placed


def count_clips(messages: Sequence[Message]) -> int:
    """Audio parts in a conversation."""
    return sum(part["type"] == "audio" for message in messages if isinstance(message["content"], list) for part in message["content"])


def with_windows(messages: Sequence[Message], windows: Sequence[int]) -> list[Message]:
    """The conversation with each audio part repeated: one part a window of its clip, in its place.

    Args:
        messages: from `place_clips`.
        windows: how many windows each clip has.
    """
    left = iter(windows)
    repeated = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            content = [copy for part in content for copy in [part] * (next(left) if part["type"] == "audio" else 1)]
        repeated.append({**message, "content": content})
    return repeated


def conversation(sample: Sample, audio: bool = True) -> list[Message]:
    """The conversation that a row of a manifest wants answered, its clips in their places.

    Args:
        sample: the row.
        audio: False leaves the clips out, for a baseline that reads and hears nothing.

    Raises:
        DataError: markers and clips differ in number.
    """
    messages: Sequence[Message] = sample.messages or [{"role": "user", "content": sample.prompt}]
    placed = place_clips(messages, len(sample.clips))
    return placed if audio else [_without_clips(message) for message in placed]


def check_messages(messages: Any) -> list[Message]:
    """Check a conversation that came from outside.

    Returns:
        The same messages.

    Raises:
        DataError: no list of messages, an unknown role or part, or turns that don't take turns.
    """
    if not isinstance(messages, list) or not messages:
        raise DataError('a conversation is a list such as [{"role": "user", "content": "What is said? <audio>"}]')
    for number, message in enumerate(messages, start=1):
        _check_message(message, f"message {number}")
    turns = [message["role"] for message in messages]
    spoken = turns[1:] if turns[0] == "system" else turns
    if not spoken or any(role != ("user", "assistant")[number % 2] for number, role in enumerate(spoken)):
        raise DataError(f"the roles must be an optional system, then user, assistant, user and so on, not {', '.join(turns)}")
    return messages


def _check_message(message: Any, place: str) -> None:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise DataError(f'{place} needs a "role": one of {", ".join(ROLES)}')
    content = message.get("content")
    if isinstance(content, str):
        return
    if message["role"] == "assistant" or not isinstance(content, list):
        raise DataError(f'{place} needs "content": a text{"" if message["role"] == "assistant" else " or a list of parts"}')
    for part in content:
        if not isinstance(part, dict) or not (part.get("type") == "audio" or (part.get("type") == "text" and isinstance(part.get("text"), str))):
            raise DataError(f'{place}: a part is {{"type": "audio"}} or {{"type": "text", "text": "..."}}')


def _may_hold_clips(message: Message) -> bool:
    # Some templates take what the system says as text alone.
    return message["role"] == "user" or (message["role"] == "system" and (isinstance(message["content"], list) or AUDIO_MARKER in message["content"]))


def _parts(content: str | list[Message]) -> list[Message]:
    if not isinstance(content, str):
        return list(content)
    first, *behind = [[_text(piece)] if piece else [] for piece in _MARKER.split(content)]
    return first + [part for piece in behind for part in (_CLIP, *piece)]


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _on_a_new_line(parts: list[Message]) -> list[Message]:
    return [_text("\n" + parts[0]["text"]), *parts[1:]] if parts else []


def _without_clips(message: Message) -> Message:
    if isinstance(message["content"], str):
        return message
    texts = [part for part in message["content"] if part["type"] != "audio"]
    # The line feed stood between the clips and the text.
    return {**message, "content": [_text(texts[0]["text"].lstrip("\n")), *texts[1:]] if texts else []}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
