"""What a source is: a frozen dataclass whose fields are its options, with one method that reads rows.

The command line (`audiograft prepare NAME`) and recipes (`{source: NAME, ...}`) are both made from these declarations, so that an option is
written down once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar, Protocol

from audiograft.types import ConfigError, Rejection, Sample


@dataclass(frozen=True)
class SourceRow:
    """A row as its corpus has it, before anything is decided about it. Its audio is not opened yet.

    Attributes:
        sample: what the corpus says about it; `clips` are paths that can be opened from the working directory.
        audio: the bytes of an audio file, where the clip is no file of its own but a cell of a table or a member of an archive; `sample.clips`
            then holds the one name by which the corpus knows it.
        span: (start, end) in seconds, where the clip is a part of its file.
    """

    sample: Sample
    audio: bytes | None = None
    span: tuple[float, float] | None = None


class Source(Protocol):
    """A corpus, described by its options. The first line of its docstring is its summary, the rest its help; the last paragraph an example.

    Attributes:
        name: the sub-verb of `audiograft prepare`, and `source:` in recipes.
    """

    name: ClassVar[str]

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """Read lazily, always in the same order. What can't be read is a `Rejection`, and the reading goes on.

        Args:
            skip: rows and rejections to pass over, as cheaply as the format allows; the ones behind are the same as without.

        Raises:
            DataError: nothing can be read at all: a folder that is missing, or not of this layout.
        """
        ...


def missing_package(source: Source, error: ImportError) -> ConfigError:
    """The error for a package that a source, or what it reads with, lacks."""
    package = (error.name or "audiograft").partition(".")[0]
    return ConfigError(f"{source.name}: {error}: run pip install --upgrade {package}")


def option(help: str, default: Any = MISSING, *, argument: bool = False) -> Any:
    """A dataclass field that becomes an option of the command line and a key in recipes.

    Args:
        help: a sentence for `--help`.
        default: none makes it required; a mutable one is not allowed, so give tuples.
        argument: make it positional on the command line.
    """
    metadata = {"help": help, "argument": argument}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)
