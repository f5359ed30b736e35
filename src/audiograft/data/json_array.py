"""The elements of a JSON array, one at a time: a manifest that is one array may be larger than memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

_BLOCK_BYTES = 1 << 16
_BLANKS = " \t\r\n"
_LONGEST_TOKEN = len("-Infinity")
"""An error this near to the end of what was read may be a word, a number or an escape that is cut off."""


class BrokenArrayError(ValueError):
    """An error of syntax, behind which nothing is certain.

    Attributes:
        line: where it was met, counted from 1.
    """

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


def array_elements(file: BinaryIO) -> Iterator[tuple[int, int, Any]]:
    """Read an array from the start of a file.

    Args:
        file: UTF-8, with or without a byte order mark, from which the first character is `[`.

    Yields:
        Line and byte offset at which each element begins, and the element.

    Raises:
        BrokenArrayError: as soon as an error is met; what stood before it has been given.
        UnicodeDecodeError: the file is no UTF-8.
    """
    text = _Text(file)
    if text.next() == "\ufeff":
        text.advance(1)
        text.next()
    text.advance(1)
    behind = "["
    while (character := text.next()) != "]" or behind == ",":
        if behind not in "[,":
            if character != ",":
                raise BrokenArrayError(text.line, "a comma or ] is missing")
            behind = character
            text.advance(1)
            continue
        line, offset = text.line, text.offset
        yield line, offset, text.value()
        behind = "value"
    text.advance(1)
    if text.next():
        raise BrokenArrayError(text.line, "text behind the array")


class _Text:
    """A file that is read from front to back in blocks; what lies before the present place is forgotten."""

    def __init__(self, file: BinaryIO):
        self.line, self.offset = 1, 0
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._place = "", 0

    def next(self) -> str:
        """The next character that is no blank, to which the place moves; empty at the end."""
        while True:
            behind = len(self._text)
            for index in range(self._place, behind):
                if self._text[index] not in _BLANKS:
                    self.advance(index - self._place)
                    return self._text[self._place]
            self.advance(behind - self._place)
            if not self._read():
                return ""

    def advance(self, n_characters: int) -> None:
        passed = self._text[self._place : self._place + n_characters]
        self.line += passed.count("\n")
        self.offset += len(passed.encode())
        self._place += n_characters

    def value(self) -> Any:
        """The value that begins here; the place moves behind it."""
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._place)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._may_go_on(error) or not self._read():
                    raise BrokenArrayError(self.line, getattr(error, "msg", str(error))) from error
                continue
            if end < len(self._text) or not self._read():  # a number may go on in the next block
                self.advance(end - self._place)
                return value

    def _may_go_on(self, error: ValueError) -> bool:
        """Whether the value may only be cut off by the end of the block. Else all that follows would be read for nothing."""
        if not isinstance(error, json.JSONDecodeError) or error.msg.startswith("Unterminated string"):
            return True
        return error.pos >= len(self._text) - _LONGEST_TOKEN

    def _read(self) -> bool:
        """Read on; False at the end. Blocks grow with what is held, so that one long value costs no more than its length."""
        block = self._file.read(max(_BLOCK_BYTES, len(self._text) - self._place))
        self._text = self._text[self._place :] + self._decoder.decode(block, final=not block)
        self._place = 0
        return bool(block)
