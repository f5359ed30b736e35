"""Copy the two parts of `tiny-vl` into the package, in float16 and without training leftovers.

python recipes/tiny/ship_vl.py lm runs/tiny-vl/lm              # the language model with eyes, before anything was grafted onto it
python recipes/tiny/ship_vl.py graft runs/tiny-vl/finetune     # the graft: projector and LoRA, on tiny-encoder and tiny-vl-lm
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from audiograft.model.adapters import ADAPTER_FILE, read_adapter

ASSETS = Path(__file__).resolve().parents[2] / "src" / "audiograft" / "assets"
LM_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json")
NOTE = """\
tiny-vl is a working miniature of 9 million parameters that sees and hears: drawn scenes of one to three coloured shapes, spoken or written
questions about them, and short English sentences to write down, all in synthetic voices. Photographs, other words and other voices come out wrong."""
LEFTOVERS = shutil.ignore_patterns("checkpoint*", "*.traces", "train.json", "*.html", "*.png", "*.log", "README.md", "rejected*", "index")


def ship_lm(run: Path) -> Path:
    out = ASSETS / "tiny-vl-lm"
    shutil.rmtree(out, ignore_errors=True)
    model = AutoModelForImageTextToText.from_pretrained(run, dtype=torch.float16)
    model.save_pretrained(out)
    for name in LM_FILES:
        shutil.copy(run / name, out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        part.pop("_name_or_path", None)  # where it was made is nobody's business
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return out


def ship_graft(run: Path) -> Path:
    """The adapter of the last stage. It holds the whole projector, so that it stands on the parts themselves and not on the stage before."""
    out = ASSETS / "tiny-vl"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out, ignore=LEFTOVERS)
    adapter = read_adapter(run)
    first = read_adapter(Path(adapter.base["model"]))
    parts = first.base["graft"] | {part: Path(source).name for part, source in first.sources.items()}
    shipped = replace(adapter, base={"graft": parts}, base_sha256=first.base_sha256, relative={}, note=NOTE)
    (out / ADAPTER_FILE).write_text(json.dumps(asdict(shipped), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in out.rglob("*.safetensors"):
        tensors = {name: tensor.to(torch.float16) for name, tensor in load_file(path).items()}
        save_file(tensors, path, {"format": "pt"})
    return out


if __name__ == "__main__":
    shipped = {"lm": ship_lm, "graft": ship_graft}[sys.argv[1]](Path(sys.argv[2]))
    for path in sorted(shipped.rglob("*")):
        if path.is_file():
            print(f"{path.relative_to(ASSETS)}: {path.stat().st_size / 1e6:.2f} MB")
