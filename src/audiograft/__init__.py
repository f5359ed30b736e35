"""audiograft: give a language model ears.

import audiograft
audiograft.load("tiny").transcribe("clip.wav").text
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from audiograft.inference.engine import Engine

__version__ = "0.6.0"
__all__ = ["__version__", "load"]


def load(model: str | Path = "tiny", device: str = "auto") -> Engine:
    """Open a model: `tiny` (shipped), a folder, or a hub id.

    Importing audiograft stays free of torch; this is where it is loaded.

    Raises:
        audiograft.types.ConfigError: the model or device can't be used.
    """
    from audiograft.inference.engine import Engine

    return Engine.load(model, device)
