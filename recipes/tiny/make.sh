#!/usr/bin/env bash
# Makes the shipped model `tiny` again, from nothing: `make tiny`. Some three hours on 2 cores; needs espeak-ng and flite.
# Corpora, intermediate models and logs go to runs/tiny; what is better than the shipped model is copied by hand (last lines).
set -euo pipefail
out=runs/tiny
minutes_encoder=${MINUTES_ENCODER:-75}
minutes_lm=${MINUTES_LM:-30}
mkdir -p "$out"

say() { printf '\n== %s\n' "$*"; }
corpus() { [ -f "$out/$1/manifest.jsonl" ] || audiograft prepare synthetic --out "$out/$1" "${@:2}"; }

say "speech: 36,000 clean and 36,000 augmented clips in training voices, 400 for validation; half the rows ask who, where, when, how many, which colour"
corpus train-clean-1 --split train --voices training --rows 12000 --seed 2 --questions 0.5
corpus train-clean-2 --split train --voices training --rows 24000 --seed 4 --questions 0.5
corpus train-augmented-1 --split train --voices training --rows 12000 --seed 1 --augmented --questions 0.5
corpus train-augmented-2 --split train --voices training --rows 24000 --seed 3 --augmented --questions 0.5
corpus dev --split dev --voices training --rows 400 --seed 1 --questions 0.5

say "encoder: CTC on characters, $minutes_encoder minutes"
[ -f "$out/tiny-encoder/preprocessor_config.json" ] || python recipes/tiny/pretrain_encoder.py \
    --train "$out"/train-* --dev "$out/dev" --out "$out/tiny-encoder" --minutes "$minutes_encoder"

say "language model: sentences, reading lessons and questions, $minutes_lm minutes"
[ -f "$out/tiny-lm/tokenizer.json" ] || python recipes/tiny/pretrain_lm.py --out "$out/tiny-lm" --minutes "$minutes_lm"

say "graft, align, finetune: as for a big model"
audiograft graft --audio-encoder "$out/tiny-encoder" --language-model "$out/tiny-lm" --projector swiglu --frame-stack 4 --out "$out/graft"
audiograft train recipes/tiny/align.yaml
audiograft train recipes/tiny/finetune.yaml

say "finetune once more, three quarters of the rows being transcripts now"
for corpus in train-clean-2 train-augmented-1 dev; do
    python recipes/tiny/ask_less.py "$out/$corpus" 0.25 "$out/$corpus/quarter.jsonl"
done
audiograft train recipes/tiny/finetune.yaml --set model="$out/finetune" --set output_dir="$out/final" --set epochs=1.3 --set learning_rate=7e-4 \
    --set data.train="[$out/train-clean-2/quarter.jsonl,$out/train-augmented-1/quarter.jsonl]" --set data.validation="$out/dev/quarter.jsonl"

say "results: 500 unseen sentences each, in training voices, in held-out voices, and with shuffled audio (above, at the end of training)"
for voices in training held-out; do
    corpus "test-$voices" --split test --voices "$voices" --rows 500 --seed 99
    audiograft evaluate --model "$out/final" --data "$out/test-$voices" --out "$out/results-$voices" --batch-size 32
done
echo "to ship it: python recipes/tiny/ship.py $out"
