"""Copy a finished run of `make tiny` into the package: both halves and the graft, in float16, without training leftovers.

python recipes/tiny/ship.py runs/tiny
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from audiograft.model import load_graft
from audiograft.model.audio_tower import AudioTower

ASSETS = Path(__file__).resolve().parents[2] / "src" / "audiograft" / "assets"
NOTE = """\
tiny is a working miniature of 7 million parameters, trained from nothing on synthetic speech (espeak-ng and flite) of one small grammar.
It hears short English sentences of that grammar, one per clip, and answers questions about them: who, where, when, how many, which colour. It is
not a speech recogniser for the world: other words, other voices and long recordings come out wrong.
"""


def main(run: Path) -> None:
    tower = AudioTower.from_pretrained(run / "tiny-encoder", dtype=torch.float16)
    lm = AutoModelForCausalLM.from_pretrained(run / "tiny-lm", dtype=torch.float16)
    tower.save_pretrained(ASSETS / "tiny-encoder")
    shutil.copy(run / "tiny-encoder" / "preprocessor_config.json", ASSETS / "tiny-encoder")
    lm.save_pretrained(ASSETS / "tiny-lm")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(run / "tiny-lm" / name, ASSETS / "tiny-lm")
    model, processor = load_graft(run / "final", dtype=torch.float16)
    model.config.note = NOTE.strip()
    model.save_pretrained(ASSETS / "tiny")
    processor.save_pretrained(ASSETS / "tiny")
    for path in sorted(ASSETS.rglob("*.safetensors")):
        print(f"{path.relative_to(ASSETS)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
