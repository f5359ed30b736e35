"""Train the vision-language model of `tiny-vl`: Qwen2-VL layout, eyes from nothing, the language model from `tiny-lm`, no ears yet.

    python recipes/tiny/pretrain_vl.py --out DIR --minutes 60

First the eyes alone learn to say what each place of a scene holds, in the embeddings of the language model's words: as large models do, this one
starts from eyes that have seen pictures before. Then the whole looks at scenes and answers questions about them (audiograft.data.scenes), several a
scene, turn by turn; some rows (`DESCRIBED_SHARE`) end with a description of the scene. In part of the rows (`SPELLED_SHARE`) the questions are
spelled out in letters as in pretrain_lm.py, where an audio token will stand for some letters later: a large language model can read spelled-out text
from the start, also beside a picture. The other rows (`LESSON_SHARE`) are the lessons of pretrain_lm.py, so that nothing of these is forgotten.

It is measured on dev scenes by the likeliest tokens behind the question: all of them right is what greedy decoding would write.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen2ForCausalLM, Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from pretrain_lm import BLUR, Step, row, spell

from audiograft.data.scenes.questions import ASKERS, SceneQuestion, ask_about
from audiograft.data.scenes.scene import COLOURS, GRID, KINDS, SIZES, Scene, render, scenes
from audiograft.data.synthetic.grammar import sentences
from audiograft.model.checkpoint import resolve_model

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PATCH_PX = 14
SEEN_PX = 84
"""Pictures are scaled to this side. Four patches make a token: each of the nine places of a scene is one token."""
VISION = {"depth": 4, "embed_dim": 128, "num_heads": 4, "mlp_ratio": 4, "patch_size": PATCH_PX}
EYES_MINUTES = 1.5
EYES_ROWS = 32
MROPE_SECTION = [8, 12, 12]
"""How many of the head's rotations go by time, height and width."""
HARD_KINDS, HARD_SHARE = ("comparison", "count"), 0.3
"""These look at more than one shape and are learnt last: so many questions more are of them than fall to them by chance."""
LESSON_SHARE = 0.15
SPELLED_SHARE = 0.1
"""Of the rows with a scene."""
SIMPLE_SHARE, SIMPLE_UNTIL = 0.7, 0.3
"""Of the scenes at the start, those with one or two shapes alone; none any more after this share of the time."""
MOST_TURNS = {"written": 6, "spelled": 2}
POSITIONS_PER_BATCH = 2000
DESCRIBED_SHARE = 0.2
"""Of the rows with written questions: these end with a description of the whole scene, which tells most about what is to be seen."""
DESCRIBE = "what do you see"
POOL_ROWS = 512
"""So many rows are drawn at once, and those of similar length share a batch."""
EYES_LEARNING_RATE = 1.5e-3
LANGUAGE_LEARNING_RATE = 1.2e-3
WARMUP_STEPS = 100
DEV_QUESTIONS = 512
IMAGE_TOKENS = (SEEN_PX // (2 * PATCH_PX)) ** 2


def build_tokenizer() -> Qwen2Tokenizer:
    """That of `tiny-lm` with tokens for pictures in its empty seats."""
    tokenizer = Qwen2Tokenizer.from_pretrained(resolve_model("tiny-lm"))
    tokenizer.add_special_tokens({"additional_special_tokens": list(VISION_TOKENS)})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(tokenizer: Qwen2Tokenizer) -> Qwen2VLForConditionalGeneration:
    """The language model's weights are `tiny-lm`'s, the eyes are new; a text without pictures gets the same logits as there."""
    lm = Qwen2ForCausalLM.from_pretrained(resolve_model("tiny-lm"), dtype=torch.float32)
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    names += ("max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id")
    text: dict[str, Any] = {name: getattr(lm.config, name) for name in names}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": MROPE_SECTION, "rope_theta": lm.config.rope_parameters["rope_theta"]}
    vision_start, vision_end, image, video = tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    config = Qwen2VLConfig(
        text_config=text, vision_config={**VISION, "hidden_size": lm.config.hidden_size}, image_token_id=image, video_token_id=video,
        vision_start_token_id=vision_start, vision_end_token_id=vision_end, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2VLForConditionalGeneration(config)
    model.model.language_model.load_state_dict(lm.model.state_dict())
    model.tie_weights()
    ids = torch.randint(0, 500, (2, 12))
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, lm(input_ids=ids).logits, atol=1e-4)
    return model


@dataclass
class Lesson:
    """Steps and labels of a row, and the picture at its `<|image_pad|>` steps."""

    steps: list[Step]
    labels: list[int]
    pixels: Any = None


def word_embeddings(model: Qwen2VLForConditionalGeneration, teacher: Teacher, words: Sequence[str]) -> Tensor:
    """(words, width): the embeddings of each word's pieces, as it stands in a sentence, added up, and all equally long."""
    table = model.get_input_embeddings().weight.detach()
    sums = torch.stack([table[teacher.encode(f" {word}")].sum(0) for word in words])
    return 2 * table.norm(dim=1).mean() * nn.functional.normalize(sums, dim=1)


def open_eyes(model: Qwen2VLForConditionalGeneration, teacher: Teacher, minutes: float) -> None:
    """Teach the eyes to say what each place of a scene holds in the language model's own words.

    A visual token is to be the sum of the embeddings of the words for it: size, colour, kind and place; of an empty place it is 0, so that even a
    look at all places alike tells where a single shape lies. Large models reach this by training on pictures with captions.
    """
    eyes, spread = model.model.visual, float(model.get_input_embeddings().weight.detach().std())
    words = {word: vector for kind in (KINDS, COLOURS, SIZES) for word, vector in zip(kind, word_embeddings(model, teacher, list(kind)), strict=True)}
    down, across = (word_embeddings(model, teacher, names) for names in (("top", "middle", "bottom"), ("left", "middle", "right")))
    optimiser = torch.optim.AdamW(eyes.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    side = SEEN_PX // PATCH_PX
    start, step, losses = time.time(), 0, []
    while (done := (time.time() - start) / (60 * minutes)) < 1:
        pixels, targets = [], []
        for scene in islice(teacher.scenes, EYES_ROWS):
            pixels.append(teacher.look(scene))
            target = torch.zeros(GRID * GRID, down.shape[1])
            for shape in scene.shapes:
                what = words[shape.kind] + words[shape.colour] + words[shape.size]
                target[shape.row * GRID + shape.column] = what + down[shape.row] + across[shape.column]
            targets.append(target)
        for group in optimiser.param_groups:
            group["lr"] = EYES_LEARNING_RATE * min(1, (step + 1) / 100) * max(0.05, 0.5 * (1 + math.cos(math.pi * done)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = eyes(torch.from_numpy(np.concatenate(pixels)), grid_thw=torch.tensor([[1, side, side]] * EYES_ROWS)).pooler_output
        loss = nn.functional.mse_loss(seen.float() / spread, torch.cat(targets) / spread)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(eyes.parameters(), 1.0)
        optimiser.step()
        step += 1
        losses.append(loss.item())
        if step % 100 == 0:
            variance = float((torch.cat(targets) / spread).var(0).mean())
            told = f"eyes: step {step} {(time.time() - start) / 60:.1f} min"
            print(f"{told} loss {sum(losses[-100:]) / 100:.4f} of {variance:.4f}", flush=True)


class Teacher:
    """Makes rows."""

    def __init__(self, tokenizer: Qwen2Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.letters = {letter: tokenizer.convert_tokens_to_ids("Ġ" if letter == " " else letter) for letter in " '_abcdefghijklmnopqrstuvwxyz"}
        self.rng = random.Random(seed)
        self.sentences = sentences("train", seed + 1)
        self.scenes = scenes("train", seed + 1)
        self.simple = 0.0
        # Pictures of other sizes come out about as large.
        self.eyes = Qwen2VLImageProcessorPil(size={"shortest_edge": SEEN_PX**2, "longest_edge": SEEN_PX**2})
        self.image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain(self, text: str) -> list[Step]:
        return [[(token, 1.0)] for token in self.encode(text)]

    def look(self, scene: Scene) -> Any:
        return self.eyes(images=[render(scene, self.rng)], return_tensors="np")["pixel_values"]

    def row(self) -> Lesson:
        if self.rng.random() < LESSON_SHARE:
            return Lesson(*row(next(self.sentences), self.tokenizer, self.letters, self.rng))
        scene, spelled = next(self.scenes), self.rng.random() < SPELLED_SHARE
        if self.rng.random() < self.simple:
            scene = next(scene for scene in self.scenes if len(scene.shapes) <= 2)
        turns = self.rng.randint(1, MOST_TURNS["spelled" if spelled else "written"])
        questions = [ask_about(scene, self.rng, HARD_KINDS if self.rng.random() < HARD_SHARE else tuple(ASKERS)) for _ in range(turns)]
        if not spelled and self.rng.random() < DESCRIBED_SHARE:
            # Behind the questions, which would be answered from it otherwise and not from the picture.
            questions[1:] = [*questions[1:2], SceneQuestion("description", DESCRIBE, scene.name.replace(",", " and"))]
        return self.about(scene, questions, spelled)

    def batches(self) -> Iterator[list[Lesson]]:
        """Endless batches of rows of similar length, in random order within each pool."""
        while True:
            pool = sorted((self.row() for _ in range(POOL_ROWS)), key=lambda lesson: len(lesson.steps))
            batches: list[list[Lesson]] = [[]]
            for lesson in pool:
                if (len(batches[-1]) + 1) * len(lesson.steps) > POSITIONS_PER_BATCH:
                    batches.append([])
                batches[-1].append(lesson)
            self.rng.shuffle(batches)
            yield from batches

    def about(self, scene: Scene, questions: list[SceneQuestion], spelled: bool) -> Lesson:
        """A conversation about a scene, laid out as the processor of the graft does: the picture, then the question on a new line, or its sound."""
        steps = [*self.plain("<|im_start|>user\n<|vision_start|>"), *([[(self.image_id, 1.0)]] * IMAGE_TOKENS), *self.plain("<|vision_end|>")]
        labels = [-100] * len(steps)
        for number, question in enumerate(questions):
            if number:
                steps += self.plain("\n<|im_start|>user\n")
            if spelled:
                steps += [*spell(question.text, self.letters, self.rng), *self.plain("<|im_end|>\n<|im_start|>assistant\n")]
            else:
                steps += self.plain(("" if number else "\n") + question.text + "<|im_end|>\n<|im_start|>assistant\n")
            answer = self.encode(question.answer + "<|im_end|>")
            labels += [-100] * (len(steps) - len(labels)) + answer
            steps += [[(token, 1.0)] for token in answer]
        return Lesson(steps, labels, self.look(scene))


def batch_of(lessons: list[Lesson], image_id: int) -> dict[str, Tensor]:
    longest = max(len(lesson.steps) for lesson in lessons)
    ids, weights = np.zeros((len(lessons), longest, len(BLUR)), np.int64), np.zeros((len(lessons), longest, len(BLUR)), np.float32)
    labels = np.full((len(lessons), longest), -100)
    mask = np.zeros((len(lessons), longest), np.int64)
    for r, lesson in enumerate(lessons):
        labels[r, : len(lesson.labels)] = lesson.labels
        mask[r, : len(lesson.steps)] = 1
        for t, step in enumerate(lesson.steps):
            for k, (token, weight) in enumerate(step):
                ids[r, t, k], weights[r, t, k] = token, weight
    is_image = ids[:, :, 0] == image_id
    batch = {
        "letters": torch.from_numpy(ids), "weights": torch.from_numpy(weights), "labels": torch.from_numpy(labels),
        "input_ids": torch.from_numpy(np.where(is_image, image_id, 0)), "attention_mask": torch.from_numpy(mask),
    }  # fmt: skip
    pictures = [lesson.pixels for lesson in lessons if lesson.pixels is not None]
    if pictures:
        side = SEEN_PX // PATCH_PX
        batch |= {
            "pixel_values": torch.from_numpy(np.concatenate(pictures)), "image_grid_thw": torch.tensor([[1, side, side]] * len(pictures)),
            "mm_token_type_ids": torch.from_numpy(is_image.astype(np.int64)),
        }  # fmt: skip
    return batch


def logits_of(model: Qwen2VLForConditionalGeneration, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(labelled tokens, vocabulary) and their labels."""
    given = dict(batch)
    labels, letters, weights = given.pop("labels"), given.pop("letters"), given.pop("weights")
    embeds = (model.get_input_embeddings()(letters) * weights[..., None]).sum(2)
    model.model.rope_deltas = None
    hidden = model.model(**given, inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != -100
    return model.lm_head(hidden[wanted]).float(), labels[:, 1:][wanted]


def accuracy(model: Qwen2VLForConditionalGeneration, teacher: Teacher, spelled: bool) -> str:
    """Of questions about dev scenes, the share whose every token is the likeliest, over all and by kind."""
    dev = Teacher(teacher.tokenizer, 99)
    asked = [(scene, ask_about(scene, dev.rng)) for scene in islice(scenes("dev", 1), DEV_QUESTIONS)]
    right: Counter[str] = Counter()
    counts = Counter(question.kind for _, question in asked)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for first in range(0, len(asked), 64):
            chunk = asked[first : first + 64]
            lessons = [dev.about(scene, [question], spelled) for scene, question in chunk]
            logits, labels = logits_of(model.eval(), batch_of(lessons, dev.image_id))
            hits = iter((logits.argmax(-1) == labels).tolist())
            for (_, question), lesson in zip(chunk, lessons, strict=True):
                answer = [next(hits) for label in lesson.labels if label != -100]
                right[question.kind] += all(answer)
    model.train()
    return f"{sum(right.values()) / len(asked):.3f} (" + ", ".join(f"{kind} {right[kind] / counts[kind]:.2f}" for kind in sorted(counts)) + ")"


def train(model: Qwen2VLForConditionalGeneration, teacher: Teacher, minutes: float, out: Path) -> None:
    # The eyes stay as they are: taught along, they lose within minutes what the language model does not ask for yet.
    model.model.visual.requires_grad_(False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    start, step, rows, losses = time.time(), 0, 0, []
    lessons = teacher.batches()
    model.train()
    while (done := (time.time() - start) / (60 * minutes)) < 1:
        teacher.simple = SIMPLE_SHARE * max(0.0, 1 - done / SIMPLE_UNTIL)
        chosen = next(lessons)
        batch = batch_of(chosen, teacher.image_id)
        for group in optimiser.param_groups:
            group["lr"] = LANGUAGE_LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, labels = logits_of(model, batch)
        loss = nn.functional.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        step, rows = step + 1, rows + len(chosen)
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step} {(time.time() - start) / 60:.1f} min {rows} rows, loss {sum(losses[-100:]) / 100:.4f}", flush=True)
        if step % 500 == 0:
            print(f"  dev, written {accuracy(model, teacher, spelled=False)}", flush=True)
            model.save_pretrained(out / "checkpoint")
    print(f"step {step} {rows} rows", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights of an earlier run to go on from")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    if args.start:
        model = Qwen2VLForConditionalGeneration.from_pretrained(args.start, dtype=torch.float32)
    teacher = Teacher(tokenizer, args.seed)
    counts = sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.model.visual.parameters())
    print(f"{counts[0] / 1e6:.2f} M parameters, {counts[1] / 1e6:.2f} M of them eyes", flush=True)
    if not args.start:
        open_eyes(model, teacher, EYES_MINUTES)
    train(model, teacher, args.minutes, args.out)
    for spelled in (False, True):
        print(f"dev, {'spelled' if spelled else 'written'} {accuracy(model, teacher, spelled)}", flush=True)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.eval().save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    teacher.eyes.save_pretrained(args.out)


if __name__ == "__main__":
    main()
