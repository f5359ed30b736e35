#!/usr/bin/env bash
# The whole story in ten minutes on two cores, offline: make speedrun
#
# Two frozen halves ship with audiograft: tiny-encoder, which knows how speech sounds, and tiny-lm, which knows how sentences go. Neither has ever
# met the other. By the end of this script they are one model that hears. Bigger models take the same commands, only longer.
# Needs espeak-ng and flite to make the speech: apt-get install espeak-ng flite
# Output goes to runs/speedrun, which is made anew, or into the new folder that is named: bash recipes/speedrun.sh FOLDER
set -euo pipefail
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

out=${1:-}
[[ -z $out || $out == /* ]] || out=$PWD/$out
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ ! -d .venv/bin ]] || PATH=$PWD/.venv/bin:$PATH
command -v audiograft >/dev/null || fail "audiograft is not installed: run make demo first"
for engine in espeak-ng flite; do
    command -v "$engine" >/dev/null || fail "$engine is not installed: apt-get install espeak-ng flite, or on macOS: brew install espeak-ng flite"
done
if [[ -z $out ]]; then
    out=runs/speedrun
    rm -rf runs/speedrun
elif [[ -e $out ]]; then
    fail "$out is there already: name a new folder"
fi
start=$SECONDS
step() { printf '\n\033[1m[%d:%02d] %s\033[0m\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$*"; }

step "1. Speech to learn from: 7,000 sentences of a small grammar in over 500 synthetic voices; and unseen sentences to test with."
audiograft prepare synthetic --out "$out/train" --split train --voices training --rows 7000 --seed 11
audiograft prepare synthetic --out "$out/dev" --split dev --voices training --rows 100 --seed 12
audiograft prepare synthetic --out "$out/test" --split test --voices training --rows 300 --seed 13

step "2. Graft: encoder + new projector + language model. It can't hear yet: the projector is random."
audiograft graft --audio-encoder tiny-encoder --language-model tiny-lm --projector swiglu --frame-stack 4 --out "$out/graft"

step "3. Align: only the projector learns, four frames of audio become one token the language model can read."
audiograft train recipes/tiny/align.yaml --set model="$out/graft" --set output_dir="$out/align" --set data.train="$out/train" \
    --set data.validation="$out/dev" --set feature_cache="$out/cache" --set epochs=2 --set pad_to_window_share=0

step "4. Finetune: projector and low-rank adapters (LoRA) in the language model, merged at the end."
audiograft train recipes/tiny/finetune.yaml --set model="$out/align" --set output_dir="$out/finetune" --set data.train="$out/train" \
    --set data.validation="$out/dev" --set feature_cache="$out/cache" --set epochs=3 --set pad_to_window_share=0

step "5. Evaluate: word error rate on sentences it has never seen, with an interval; the deafness table above shows that it listens."
audiograft evaluate --model "$out/finetune" --data "$out/test" --out "$out/results" --batch-size 32

step "6. Transcribe: your own model on the example clips."
audiograft transcribe --model "$out/finetune" examples/*.wav

step "Done. The model is in $out/finetune, every prediction in $out/results/predictions.jsonl."
python3 - "$out" $((SECONDS - start)) <<'PY'
import json, pathlib, sys
out, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
wer = json.loads((out / "results" / "metrics.json").read_text())["wer"]
deafness = json.loads((out / "finetune" / "train.json").read_text())["deafness"]
result = {"minutes": round(seconds / 60, 2), "wer": wer["rate"], "low": wer["interval"]["low"], "high": wer["interval"]["high"]}
(out / "speedrun.json").write_text(json.dumps(result) + "\n")
print(f"word error rate {wer['rate']:.1%} ({result['low']:.1%} to {result['high']:.1%}) after {result['minutes']:.1f} minutes")
for row in deafness["conditions"]:
    print(f"  {row['audio']:<9} audio: loss {row['loss']:.3f}, word error rate {row['wer']:.1%}")
PY
