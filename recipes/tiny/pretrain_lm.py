"""Train the language model of `tiny` from nothing: Qwen2 layout, ChatML, byte-level BPE, on the grammar's sentences.

    python recipes/tiny/pretrain_lm.py --out DIR --minutes 12

Some rows are plain sentences (`PLAIN_SHARE`). The others are lessons: a sentence, then an instruction, then the answer. The instruction is to write
the sentence down, or it is a question about it (`QUESTION_SHARE`). In most lessons the sentence is spelled out in letters of uneven length, some of
them blurred together, missing or wrong; in the rest (`WRITTEN_SHARE`) it stands there in words. A large language model can read spelled-out text
and answer questions about it from the start, and that is what a graft builds on: audio tokens are to become such letters. A blurred step is a
weighted sum of letter embeddings, since one audio token of 80 ms often holds more than one letter.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from audiograft.data.synthetic.grammar import Sentence, sentences
from audiograft.data.synthetic.questions import NOT_MENTIONED, WORDINGS, ask
from audiograft.types import TRANSCRIBE_PROMPT

QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Qwen2's pre-tokenizer, so that other engines recognise the tokenizer's kind."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 600
EMBEDDING_ROWS = 640
"""More rows than tokens: the empty seats that published models have too, one of which the audio placeholder takes."""
STEP_MS = 80.0
BLANK = "_"
BLUR = (1.0, 0.6, 0.35)
"""Weights of the letters that share one step, loudest first."""
PEAK_LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 200
ROWS = 32
PLAIN_SHARE = 0.2
QUESTION_SHARE = 0.5
"""Of the lessons."""
WRITTEN_SHARE = 0.15
"""Of the lessons."""


def build_tokenizer() -> Qwen2Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    texts = [sentence.text for sentence in islice(sentences("train", 0), 20_000)]
    prompts = [TRANSCRIBE_PROMPT, NOT_MENTIONED, *(wording for wordings in WORDINGS.values() for wording in wordings)]
    tokenizer.train_from_iterator([*texts, *prompts * 200], trainer)
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return Qwen2Tokenizer(
        tokenizer_object=tokenizer, vocab=tokenizer.get_vocab(), merges=_merges(tokenizer), eos_token="<|im_end|>", pad_token="<|endoftext|>",
        unk_token=None, bos_token=None, chat_template=CHAT_TEMPLATE, model_max_length=2048,
    )  # fmt: skip


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    import json

    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


Step = list[tuple[int, float]]


def spell(text: str, letters: dict[str, int], rng: random.Random) -> list[Step]:
    """The text as steps of 80 ms: (token, weight) of each letter heard in it, as an encoder would hear it."""
    letter_ms = rng.uniform(55, 105)
    error = rng.choice((0.0, 0.02, 0.05, 0.1))
    starts: list[tuple[float, str]] = []
    clock = rng.uniform(0, 300)
    for letter in text:
        if rng.random() < error:
            letter = rng.choice((BLANK, rng.choice("abcdefghijklmnopqrstuvwxyz ")))
        starts.append((clock, letter))
        clock += letter_ms * rng.uniform(0.4, 1.6)
    steps: list[Step] = [[] for _ in range(int((clock + rng.uniform(0, 500)) // STEP_MS) + 1)]
    for start, letter in starts:
        step = steps[int(start // STEP_MS)]
        if len(step) < len(BLUR):
            step.append((letters[letter], BLUR[len(step)] * rng.uniform(0.7, 1.1)))
    return [step or [(letters[BLANK], 1.0)] for step in steps]


def row(sentence: Sentence, tokenizer: Qwen2Tokenizer, letters: dict[str, int], rng: random.Random) -> tuple[list[Step], list[int]]:
    """Steps and labels (-100 where there is no loss) of one lesson or plain sentence."""

    def encode(piece: str) -> list[int]:
        return list(tokenizer(piece, add_special_tokens=False)["input_ids"])

    def plain(ids: Iterable[int]) -> list[Step]:
        return [[(i, 1.0)] for i in ids]

    if rng.random() < PLAIN_SHARE:
        ids = encode(sentence.text + "<|im_end|>")
        return plain(ids), [-100, *ids[1:]]
    instruction, wanted = TRANSCRIBE_PROMPT, sentence.text
    if rng.random() < QUESTION_SHARE:
        question = ask(sentence, rng)
        instruction, wanted = question.text, question.answer
    content = f"<split>\n{instruction}"
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    before, after = (encode(piece) for piece in prompt.split("<split>"))
    written = rng.random() < WRITTEN_SHARE
    heard = plain(encode(sentence.text)) if written else spell(sentence.text, letters, rng)
    answer = encode(wanted + "<|im_end|>")
    steps = [*plain(before), *heard, *plain([*after, *answer])]
    return steps, [-100] * (len(steps) - len(answer)) + answer


def collate(rows: list[tuple[list[Step], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and weights (rows, positions, letters) and labels (rows, positions), padded on the right with nothing."""
    longest = max(len(steps) for steps, _ in rows)
    ids, weights = np.zeros((len(rows), longest, len(BLUR)), np.int64), np.zeros((len(rows), longest, len(BLUR)), np.float32)
    labels = np.full((len(rows), longest), -100)
    for r, (steps, row_labels) in enumerate(rows):
        labels[r, : len(row_labels)] = row_labels
        for t, step in enumerate(steps):
            for k, (token, weight) in enumerate(step):
                ids[r, t, k], weights[r, t, k] = token, weight
    return torch.from_numpy(ids), torch.from_numpy(weights), torch.from_numpy(labels)


def loss_of(model: Qwen2ForCausalLM, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    ids, weights, labels = batch
    embeds = (model.get_input_embeddings()(ids) * weights[..., None]).sum(2)
    hidden = model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != -100
    return nn.functional.cross_entropy(model.lm_head(hidden[wanted]).float(), labels[:, 1:][wanted])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = build_tokenizer()
    letters = {letter: tokenizer.convert_tokens_to_ids("Ġ" if letter == " " else letter) for letter in " '_abcdefghijklmnopqrstuvwxyz"}
    assert None not in letters.values()
    config = Qwen2Config(
        vocab_size=EMBEDDING_ROWS, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(tokenizer)} tokens", flush=True)
    source = sentences("train", args.seed + 1)
    start, step, losses = time.time(), 0, []
    while (done := (time.time() - start) / (60 * args.minutes)) < 1:
        batch = collate([row(next(source), tokenizer, letters, rng) for _ in range(ROWS)])
        rate = PEAK_LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step} {(time.time() - start) / 60:.1f} min loss {sum(losses[-50:]) / 50:.4f}", flush=True)
    dev = list(islice(sentences("dev", 0), 256))
    with torch.no_grad():
        dev_loss = loss_of(model.eval(), collate([row(sentence, tokenizer, letters, rng) for sentence in dev])).item()
    print(f"step {step} {step * ROWS} rows, dev loss {dev_loss:.4f} a token", flush=True)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
