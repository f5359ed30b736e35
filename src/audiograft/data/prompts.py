"""Instructions from a file, of which each row draws its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from audiograft.types import TRANSCRIBE_PROMPT, DataError, Sample

PACKAGED_PROMPTS = "instructions"
"""Names 16 ways to ask for a transcript, which are in the package, wherever no file is called so."""


def find_prompts(path: str | Path) -> Path:
    """The file of instructions that a path or `PACKAGED_PROMPTS` names; it may be missing."""
    if str(path) == PACKAGED_PROMPTS and not Path(path).is_file():
        return Path(str(files("audiograft") / "assets" / f"{PACKAGED_PROMPTS}.txt"))
    return Path(path)


def read_prompts(path: str | Path) -> list[str]:
    """Instructions, one a line; blank lines are left out.

    Args:
        path: of the file, or `PACKAGED_PROMPTS`.

    Raises:
        DataError: the file is missing, no text, or empty.
    """
    try:
        lines = [line.strip() for line in find_prompts(path).read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"{path}: can't be read ({why}): name a file of instructions, one a line, as UTF-8") from error
    if not any(lines):
        raise DataError(f"{path}: no instructions: write one a line")
    return [line for line in lines if line]


def with_drawn_prompt(sample: Sample, prompts: Sequence[str], seed: int) -> Sample:
    """The sample with one of the instructions, where it has clips and no instruction of its own."""
    if not sample.clips or sample.messages or sample.prompt != TRANSCRIBE_PROMPT:
        return sample
    return replace(sample, prompt=prompts[int(drawn(seed, f"{sample.id}/prompt") * len(prompts))])


def drawn(seed: int, row_id: str) -> float:
    """A number in [0, 1) that depends on seed and row alone, so that it is the same in every epoch and after a resume."""
    # Half of a surrogate pair comes from a file name that is not UTF-8.
    digest = hashlib.blake2b(f"{seed}/{row_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
