#!/usr/bin/env bash
# Make `tiny-detect` from `tiny`: clips, training, temperature and threshold. Needs espeak-ng and flite; some 40 minutes on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=runs/detection
mkdir -p "$out"

say() { printf '\n== %s\n' "$*"; }

say "speech: 2,500 sentences read by voices of other languages, for variety"
[ -f "$out/languages/manifest.jsonl" ] || audiograft prepare synthetic --out "$out/languages" --split train --voices languages --rows 2500 --seed 1

say "the bench: 1,200 clips to tune on, 1,800 to be tested with, in voices and kinds of sounds that training never has"
[ -f "$out/bench/test.jsonl" ] || audiograft prepare detection --out "$out/bench" --clips-per-cell 60 --splits dev=0.4,test=0.6 --seed 1

say "60,480 training clips: more lengths, ratios, noises, bands and rooms than the bench has"
[ -f "$out/train/train.jsonl" ] || audiograft prepare detection --out "$out/train" --speech synthetic@0.6 --speech "$out/languages@0.4" \
    --durations-ms 200,250,300,400,500,600,800,1000 --snrs-db=-3,0,4,8,12,16,20 --noises white,pink,brown,babble \
    --bands none,telephone,lowpass,highpass --t60-s 0,0.3,0.6 --clips-per-cell 540 --clips-per-recording 6 --splits train=1 --seed 2

say "LoRA in both halves, and the projector"
audiograft train recipes/tiny/detect.yaml

say "temperature and threshold, on the dev split"
audiograft calibrate "$out/tiny-detect" "$out/bench/dev.jsonl"

echo "to ship it: python recipes/tiny/ship_detector.py $out/tiny-detect"
