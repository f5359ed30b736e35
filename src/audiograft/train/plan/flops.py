"""Floating-point operations of one example in one training step, a multiply and an add counting as two.

Let N be the weights that a position meets, T positions of the example in the language model (its audio tokens, pictures, prompt and answer), A its
audio tokens, L its labelled positions.

  encoder                 2 N per frame and its attention, counted by torch on the meta device; the forward pass alone, since the encoder is frozen.
                          None with feature_cache; twice where it carries LoRA, since gradients then pass through it.
  projector               6 N A where it learns (forward, gradients of activations, gradients of weights), else 2 N A; 4 N A where something
                          before it learns.
  language_model          4 N T: its weights are frozen and have no gradients, but gradients pass through it. 6 N T with gradient_checkpointing,
                          which computes the forward pass twice.
  attention               products of queries, keys and values, of which a causal mask leaves half: forward 2 T^2 * (heads * head width) * layers;
                          3 times that with the backward pass, 4 times with gradient_checkpointing.
  head                    4 V hidden L: at labelled positions alone (V rows of the vocabulary).
  lora                    6 N per position where it sits; 8 in the language model with gradient_checkpointing.
  teacher                 with the loss kl: the forward pass of the language model on the prompt, the transcript and the answer,
                          2 N (T - A + L), and its head.

The 2, 4 and 6 N are those of Kaplan et al. 2020 (arXiv:2001.08361, section 2.1). Norms, activations and embeddings are left out, as is usual: below a
percent here. What eyes compute before pictures are positions is left out too, and the plan says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from audiograft.train.plan.anatomy import Anatomy
from audiograft.train.recipe import Recipe


@dataclass(frozen=True)
class Example:
    """Lengths of one training row.

    Attributes:
        feature_frames: that the encoder is given, by clip.
        audio_tokens: of all clips.
        prompt_tokens: of the text before the answer.
        response_tokens: of the answer, its end included; these carry loss.
        audio_s: length of the clips, pads left out.
        picture_tokens: of all images.
    """

    feature_frames: tuple[int, ...]
    audio_tokens: int
    prompt_tokens: int
    response_tokens: int
    audio_s: float
    picture_tokens: int = 0

    @property
    def positions(self) -> int:
        """In the language model."""
        return self.audio_tokens + self.picture_tokens + self.prompt_tokens + self.response_tokens


def attention_flops(anatomy: Anatomy, positions: int) -> float:
    """Forward, causal."""
    return 2.0 * positions**2 * anatomy.decoder.query * anatomy.decoder.layers


def example_flops(anatomy: Anatomy, recipe: Recipe, example: Example) -> dict[str, float]:
    """FLOPs of one example in one training step, by the terms above."""
    decoder, lora = anatomy.decoder, anatomy.lora
    tower_learns = lora["audio_tower"].params > 0
    projector_passes = 6 if anatomy.projector_trains else 4 if tower_learns or lora["projector"].params else 2
    again = 1 if recipe.gradient_checkpointing else 0
    encoder = sum(anatomy.tower_flops(frames) for frames in example.feature_frames)
    encoder_frames = sum(anatomy.tower_frames(frames) for frames in example.feature_frames)
    head = decoder.vocabulary * decoder.hidden * example.response_tokens
    terms = {
        "encoder": encoder * (0 if recipe.feature_cache else 2 if tower_learns else 1),
        "projector": float(projector_passes * anatomy.projector_linears * example.audio_tokens),
        "language_model": float((4 + 2 * again) * decoder.linear_params * example.positions),
        "attention": (3 + again) * attention_flops(anatomy, example.positions),
        "head": 4.0 * head,
        "lora": float(
            (6 + 2 * again) * lora["language_model"].params * example.positions
            + 6 * lora["audio_tower"].params * encoder_frames
            + 6 * lora["projector"].params * example.audio_tokens
        ),
        "teacher": 0.0,
    }
    if recipe.loss == "kl":
        read = example.positions - example.audio_tokens + example.response_tokens
        terms["teacher"] = 2.0 * decoder.linear_params * read + attention_flops(anatomy, read) + 2.0 * head
    return terms
