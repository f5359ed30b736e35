#!/usr/bin/env bash
# Makes the shipped model `tiny-vl` again, from `tiny-lm` and `tiny-encoder`: `make tiny-vl`. Needs espeak-ng and flite; some 100 minutes on 2 cores.
# The language model with eyes is copied into the package before it is grafted, since the graft names it; the rest is copied at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=runs/tiny-vl
minutes_lm=${MINUTES_LM:-60}
mkdir -p "$out"

say() { printf '\n== %s\n' "$*"; }
scenes() { [ -f "$out/$1/manifest.jsonl" ] || audiograft prepare scenes --out "$out/$1" --spoken 1 "${@:2}"; }
speech() { [ -f "$out/$1/manifest.jsonl" ] || audiograft prepare synthetic --out "$out/$1" --voices training "${@:2}"; }

say "eyes: scenes of coloured shapes and questions about them, beside the lessons of tiny-lm, $minutes_lm minutes"
[ -f "$out/lm/tokenizer.json" ] || python recipes/tiny/pretrain_vl.py --out "$out/lm" --minutes "$minutes_lm"
python recipes/tiny/ship_vl.py lm "$out/lm"

say "ears: 9,000 spoken questions about pictures, 9,000 sentences to transcribe"
scenes scenes-train --split train --rows 9000 --seed 11
scenes scenes-dev --split dev --rows 200 --seed 11
speech speech-train --split train --rows 9000 --seed 21
speech speech-dev --split dev --rows 200 --seed 21
python recipes/tiny/join.py "$out/dev.jsonl" "$out/scenes-dev" "$out/speech-dev"

say "graft, align, finetune: as for a big model"
audiograft train recipes/tiny/vl_align.yaml
audiograft train recipes/tiny/vl_finetune.yaml

python recipes/tiny/ship_vl.py graft "$out/finetune"
