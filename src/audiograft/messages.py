"""Conversations, and where clips and pictures stand in them: text with markers becomes content parts. Knows no tokens.

A conversation is a list of messages as chat templates take them: `{"role": ..., "content": ...}` with the roles system, user and assistant. The
content is text, or a list of parts: `{"type": "text", "text": ...}`, `{"type": "audio"}`, `{"type": "image"}` and `{"type": "video"}`. These name no
file: files are given beside the conversation, those of a kind in the order of their parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from audiograft.types import DataError, Sample

Message = dict[str, Any]

AUDIO_MARKER, IMAGE_MARKER, VIDEO_MARKER = "<audio>", "<image>", "<video>"
"""A clip's, an image's and a video's place in a text; `<audio></audio>` means the same, and so on."""
MEDIA = {"image": "image", "video": "video", "audio": "clip"}
"""Kinds of parts that are no text -> what users call them, in the order in which they stand where nothing marks their places."""
ROLES = ("system", "user", "assistant")
_MARKER = re.compile(r"<(audio|image|video)>(?:</\1>)?")


def audio_messages(prompt: str, n_clips: int = 1) -> list[Message]:
    """One user turn with the clips where its markers put them, see `media_messages`."""
    return media_messages(prompt, clips=n_clips)


def media_messages(prompt: str, *, clips: int = 0, images: int = 0, videos: int = 0) -> list[Message]:
    """One user turn with clips and pictures where its markers put them; without markers they come first, the prompt on a line of its own.

    An empty prompt gives them alone: whatever is asked is asked in the clips.

    Raises:
        DataError: as many markers of a kind as there are of it are needed, or none; the message has both counts.
    """
    return place_media([{"role": "user", "content": prompt}], clips=clips, images=images, videos=videos)


def place_media(messages: Sequence[Message], *, clips: int = 0, images: int = 0, videos: int = 0) -> list[Message]:
    """The conversation with its markers as parts: `{"type": "audio"}` a clip, and likewise images and videos.

    Those of a kind that has no marker and no part stand in front of the first user turn: images, then videos, then clips. What the assistant said is
    taken literally, and so is the text of a part.

    Raises:
        DataError: as many markers of a kind as there are of it are needed, or none; the message has both counts.
    """
    placed = [{**message, "content": _parts(message["content"])} if _may_hold_media(message) else message for message in messages]
    unmarked: list[Message] = []
    for kind, count in zip(MEDIA, (images, videos, clips), strict=True):
        marked = count_parts(placed, kind)
        if marked == 0:
            unmarked += [{"type": kind}] * count
        elif marked != count:
            name = MEDIA[kind]
            raise DataError(
                f"{_counted(marked, f'<{kind}> marker')} in the prompt but {_counted(count, name)}: "
                f"write one marker {'an' if kind == 'image' else 'a'} {name}, or none to put the {name}s first"
            )
    if unmarked:
        first = next(message for message in placed if message["role"] == "user")
        first["content"] = unmarked + _on_a_new_line(first["content"])
    return placed


def count_parts(messages: Sequence[Message], kind: str) -> int:
    """Parts of a kind (`audio`, `image`, `video`) in a conversation."""
    return sum(part["type"] == kind for message in messages if isinstance(message["content"], list) for part in message["content"])


def with_windows(messages: Sequence[Message], windows: Sequence[int]) -> list[Message]:
    """The conversation with each audio part repeated: one part a window of its clip, in its place.

    Args:
        messages: from `place_media`.
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


def conversation(sample: Sample, audio: bool = True, pictures: bool = True) -> list[Message]:
    """The conversation that a row of a manifest wants answered, its clips and pictures in their places.

    Args:
        sample: the row.
        audio: False leaves the clips out, for a baseline that hears nothing.
        pictures: False leaves images and videos out, for one that sees nothing.

    Raises:
        DataError: markers differ in number from clips, images or videos.
    """
    messages: Sequence[Message] = sample.messages or [{"role": "user", "content": sample.prompt}]
    placed = place_media(messages, clips=len(sample.clips), images=len(sample.images), videos=len(sample.videos))
    left_out = [kind for kind in MEDIA if not (audio if kind == "audio" else pictures)]
    return [_without(message, left_out) for message in placed]


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
        _check_part(part, place)


def _check_part(part: Any, place: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return
    if not isinstance(kind, str) or kind not in MEDIA:
        raise DataError(f'{place}: a part is {{"type": "text", "text": "..."}}, or {{"type": ...}} with one of {", ".join(MEDIA)}')
    if others := [key for key in part if key != "type"]:
        # What it names would not be opened, and another file stand in its place.
        raise DataError(f'{place}: a part is {{"type": "{kind}"}} alone, without {others[0]}: give the files beside the conversation, in order')


def _may_hold_media(message: Message) -> bool:
    # Some templates take what the system says as text alone.
    content = message["content"]
    return message["role"] == "user" or (message["role"] == "system" and (isinstance(content, list) or _MARKER.search(content) is not None))


def _parts(content: str | list[Message]) -> list[Message]:
    if not isinstance(content, str):
        return list(content)
    # Between the texts, split gives the kinds that the pattern caught.
    pieces = _MARKER.split(content)
    return [{"type": piece} if place % 2 else _text(piece) for place, piece in enumerate(pieces) if piece]


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _on_a_new_line(parts: list[Message]) -> list[Message]:
    return [_text("\n" + parts[0]["text"]), *parts[1:]] if parts and parts[0]["type"] == "text" else parts


def _without(message: Message, kinds: Sequence[str]) -> Message:
    parts = message["content"]
    if isinstance(parts, str) or all(part["type"] not in kinds for part in parts):
        return message
    left = [part for part in parts if part["type"] not in kinds]
    # The line feed stood between what is left out and the text.
    return {**message, "content": [_text(left[0]["text"].lstrip("\n")), *left[1:]] if left and left[0]["type"] == "text" else left}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
