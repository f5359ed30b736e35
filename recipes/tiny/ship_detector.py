"""Copy a finished detector into the package: what was trained, its question, and how to find `tiny` beneath it.

python recipes/tiny/ship_detector.py runs/detection/tiny-detect
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from audiograft.inference.choices import ClosedQuestion

ASSETS = Path(__file__).resolve().parents[2] / "src" / "audiograft" / "assets"
FILES = (
    "adapter.json", "projector.safetensors", "detection.json",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
"""Not the traces of the training clips: 60,000 of them take more room than the weights."""
NOTE = (
    "tiny-detect is a miniature, trained on synthetic voices and sounds (espeak-ng, flite, arithmetic) of 200 to 1000 ms at -3 to 20 dB: "
    "no recording was ever tried."
)


def main(run: Path) -> None:
    out = ASSETS / "tiny-detect"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for name in FILES:
        shutil.copy(run / name, out)
    for folder in sorted(run.glob("lora-*")):
        shutil.copytree(folder, out / folder.name, ignore=shutil.ignore_patterns("README.md"))
    question = ClosedQuestion.read(out)
    chosen_on = dict(question.chosen_on or {})
    # As the recipe names it: where this repository lies is nobody's business.
    chosen_on["model"] = out.name
    chosen_on["manifest"] = str(Path(chosen_on["manifest"]).relative_to(ASSETS.parents[2]))
    replace(question, note=NOTE, chosen_on=chosen_on).write(out)
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
