"""Bytes on the GPU, term by term.

c is the size of a number in the precision that is computed in (2 bytes in bf16 and fp16, 4 in fp32), h the decoder's width, q heads times head
width, k the same of key and value heads, i the width inside its feed-forward part.

Training
  frozen_weights      parameters that do not learn, in frozen_precision; those in 4 bits left out.
  nf4_weights         decoder's linear weights * 4.127 bits with quantisation: nf4: 4 bits each, an 8-bit scale per 64 of them, and a 32-bit scale per
                      256 of those (double quantisation, Dettmers et al. 2023, arXiv:2305.14314, section 3).
  trained_weights     4 bytes each, and c more for the copy that autocast makes.
  gradients           4 bytes per trained parameter.
  optimiser           8 bytes per trained parameter: AdamW's two means.
  activations         what the backward pass needs. Per position and decoder layer
                        2 * 4 h           both RMSNorms keep their input in fp32 (and 4 (q + k) where queries and keys are normalised),
                        c * 4 q + 4 heads queries, keys and values (repeated to the number of queries where there are pads), and attention's output,
                        c * 3 i           gate, its SiLU, and up,
                        c * inputs of adapted layers + c * ranks (+ 1 byte per input with dropout),
                      all layers' at once; with gradient_checkpointing c * h per layer and one layer's in full. Frozen linear layers keep nothing: the
                      gradient of their input needs their weights alone. Besides: the projector's inputs and outputs where it learns or something
                      before it does, and the encoder's where it carries LoRA.
  logits              L * V * (c + 12) at L labelled positions: as computed, in fp32, their log-softmax, its gradient; with the loss kl 8 more.
  workspace           the larger of: gradients inside one decoder layer, c * (3 i + 4 q + 2 h) per position; a forward pass of the frozen encoder.
                      And one layer's weights unpacked to c bytes where there are 4-bit ones.
                      Eyes, which keep nothing for the backward pass either, are left out.
  overhead            1 GB for CUDA's context, its libraries' workspaces and the allocator's cuttings: a round figure, not measured.

Inference, one clip of 30 s and 256 new tokens
  weights             all parameters in 16 bits, LoRA merged; or the decoder's linear weights in NF4 and adapters beside them.
  kv_cache            2 * c * layers * (key heads * head width) per position.
  workspace           the larger of: a forward pass of the encoder on 30 s; the prompt in one decoder layer. And one row of logits in fp32.
  overhead            as above.
"""

from __future__ import annotations

from dataclasses import dataclass

from audiograft.train.plan.anatomy import Anatomy
from audiograft.train.recipe import Recipe
from audiograft.types import WINDOW_SAMPLES

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Of one weight in NF4 with double quantisation."""
OVERHEAD_BYTES = 10**9
NEW_TOKENS = 256
_SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Batch:
    """What goes through the model at once.

    Attributes:
        positions: in the language model, pads included.
        labels: positions that carry loss.
        audio_tokens: of all clips.
        encoder_frames: that the encoder computes for all clips.
    """

    positions: int
    labels: int
    audio_tokens: int
    encoder_frames: int


def total(terms: dict[str, float]) -> int:
    """Bytes of all terms."""
    return round(sum(terms.values()))


def layer_activation_bytes(anatomy: Anatomy, recipe: Recipe) -> float:
    """Kept for the backward pass by one decoder layer, per position, without gradient checkpointing."""
    c, decoder, lora = _SIZES[recipe.precision], anatomy.decoder, anatomy.lora["language_model"]
    norms = 2 * 4 * decoder.hidden + (4 * (decoder.query + decoder.key) if decoder.head_norms else 0)
    attention = c * 4 * decoder.query + 4 * decoder.heads
    return norms + attention + c * 3 * decoder.intermediate + _lora_bytes(lora.inputs, lora.ranks, recipe) / decoder.layers


def _lora_bytes(inputs: int, ranks: int, recipe: Recipe) -> float:
    c = _SIZES[recipe.precision]
    return c * (inputs + ranks) + (inputs if recipe.lora.dropout else 0)


def _activations(anatomy: Anatomy, recipe: Recipe, batch: Batch) -> float:
    c, decoder = _SIZES[recipe.precision], anatomy.decoder
    layer = layer_activation_bytes(anatomy, recipe)
    layers = c * decoder.hidden * decoder.layers + layer if recipe.gradient_checkpointing else layer * decoder.layers
    kept = batch.positions * (layers + (c + 4) * decoder.hidden)
    tower, projector = anatomy.lora["audio_tower"], anatomy.lora["projector"]
    if anatomy.projector_trains or tower.params or projector.params:
        kept += batch.audio_tokens * (c * anatomy.projector_widths + _lora_bytes(projector.inputs, projector.ranks, recipe))
    if tower.params:
        width = anatomy.tower_width
        frame = anatomy.tower_layers * (2 * 4 * width + c * (4 * width + anatomy.tower_intermediate)) + _lora_bytes(tower.inputs, tower.ranks, recipe)
        kept += batch.encoder_frames * frame
    return kept


def _tower_workspace(anatomy: Anatomy, c: int, frames: int) -> float:
    """The widest moment of a forward pass that keeps nothing: the residual stream, its norm, and the feed-forward part before and behind its GELU."""
    return float(c * frames * (2 * anatomy.tower_width + 2 * anatomy.tower_intermediate))


def _layer_workspace(anatomy: Anatomy, c: int, positions: int) -> float:
    decoder = anatomy.decoder
    return float(c * positions * (3 * decoder.intermediate + 4 * decoder.query + 2 * decoder.hidden))


def train_memory(anatomy: Anatomy, recipe: Recipe, batch: Batch) -> dict[str, float]:
    """Bytes of one training step by the terms above, on one GPU."""
    c, decoder = _SIZES[recipe.precision], anatomy.decoder
    nf4 = decoder.linear_params if recipe.quantisation == "nf4" else 0
    frozen = anatomy.total_params - nf4 - (anatomy.params["projector"] if anatomy.projector_trains else 0)
    trained = anatomy.trainable_params
    tower_workspace = 0.0 if recipe.feature_cache else _tower_workspace(anatomy, c, batch.encoder_frames)
    return {
        "frozen_weights": float(frozen * _SIZES[recipe.frozen_precision or recipe.precision]),
        "nf4_weights": nf4 * NF4_BYTES,
        "trained_weights": float(trained * (4 + (c if recipe.precision != "fp32" else 0))),
        "gradients": 4.0 * trained,
        "optimiser": 8.0 * trained,
        "activations": _activations(anatomy, recipe, batch),
        "logits": float(batch.labels * decoder.vocabulary * (c + 12 + (8 if recipe.loss == "kl" else 0))),
        "workspace": max(_layer_workspace(anatomy, c, batch.positions), tower_workspace) + (c * decoder.largest_linear if nf4 else 0),
        "overhead": float(OVERHEAD_BYTES),
    }


def infer_memory(anatomy: Anatomy, prompt_tokens: int, nf4: bool = False) -> dict[str, float]:
    """Bytes while one clip of 30 s is answered, by the terms above.

    Args:
        anatomy: of the model.
        prompt_tokens: of the instruction.
        nf4: the decoder's linear weights in 4 bits, LoRA unmerged; else everything in 16 bits.
    """
    c, decoder = 2, anatomy.decoder
    small = decoder.linear_params if nf4 else 0
    prompt = anatomy.tokens_per_window + prompt_tokens
    frames = anatomy.tower_frames(anatomy.feature_frames(WINDOW_SAMPLES))
    workspace = max(_layer_workspace(anatomy, c, prompt), _tower_workspace(anatomy, c, frames))
    return {
        "weights": float(c * (anatomy.total_params - small + (anatomy.lora_params if nf4 else 0))),
        "nf4_weights": small * NF4_BYTES,
        "kv_cache": 2.0 * c * decoder.layers * decoder.key * (prompt + NEW_TOKENS),
        "workspace": workspace + (c + 4) * decoder.vocabulary + (c * decoder.largest_linear if nf4 else 0),
        "overhead": float(OVERHEAD_BYTES),
    }


def adapter_bytes(anatomy: Anatomy, trained: int = 4) -> int:
    """Of the tensors in an adapter: LoRA, and the projector where it learns or is new, each number in so many bytes."""
    projector = anatomy.params["projector"] if anatomy.projector_trains or anatomy.projector_is_new else 0
    return trained * (anatomy.lora_params + projector)
