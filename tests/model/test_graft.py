"""Grafting encoders that are not Whisper's, from checkpoints as they lie on a hub; and parts that don't fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining, WavLMForSequenceClassification, WhisperFeatureExtractor

from audiograft.model import graft, graft_in_memory, load_graft
from audiograft.model.checkpoint import load_graft_processor
from audiograft.model.configuration import PROJECTORS, AudioGraftConfig
from audiograft.model.projector import build_projector
from audiograft.types import ConfigError

TURN = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "\nhi"}]}]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.lm_checkpoint(tmp_path_factory.mktemp("lm"))


def left(state: dict[str, Any]) -> dict[str, Any]:
    """What a tower keeps of its encoder's tensors."""
    return {name: value for name, value in state.items() if not name.startswith(("masked_spec_embed", "adapter."))}


@pytest.mark.parametrize("kind", builders.ENCODERS)
@pytest.mark.parametrize("head", [True, False])
def test_graft_save_and_load_keep_every_bit(tmp_path: Path, lm: Path, kind: str, head: bool) -> None:
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", kind, head)
    counts = graft(encoder, lm, tmp_path / "out", frame_stack=2)
    model, processor = load_graft(tmp_path / "out")
    stock = builders.encoder(kind, head=head)
    expected = left(getattr(stock, stock.base_model_prefix).state_dict() if head else stock.state_dict())
    tower = model.audio_tower.state_dict()
    assert tower.keys() == expected.keys()
    assert all(torch.equal(tower[name], value) for name, value in expected.items())
    assert counts["audio_tower"] == sum(parameter.numel() for parameter in model.audio_tower.parameters())
    assert {f"audio_tower.{name}" for name in tower} <= set(model.state_dict())

    in_memory, same = graft_in_memory(encoder, lm, frame_stack=2)
    clips = [builders.tone(1.0), builders.tone(0.7, 300.0)]
    prompts = [processor.build_prompt(TURN)] * 2
    batches = [each(prompts, audio=clips) for each in (same, processor)]
    assert batches[0].keys() == batches[1].keys()
    assert all(torch.equal(batches[0][key], batches[1][key]) for key in batches[0])
    with torch.no_grad():
        assert torch.equal(in_memory(**batches[0]).logits, model(**batches[1]).logits)


@pytest.mark.parametrize("kind", ["wav2vec2-bert", "wavlm", "wav2vec2"])
def test_an_adapter_behind_the_encoder_stays_behind(tmp_path: Path, lm: Path, kind: str) -> None:
    options = {"use_intermediate_ffn_before_adapter": True} if kind == "wav2vec2-bert" else {}
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", kind, head=True, add_adapter=True, output_hidden_size=24, **options)
    names = set(load_file(encoder / "model.safetensors"))
    assert any(".adapter." in name for name in names)
    model, _ = graft_in_memory(encoder, lm)
    assert model.audio_tower.adapter is None
    assert model.audio_tower.width == 16


def test_other_heads_stay_behind(tmp_path: Path, lm: Path) -> None:
    torch.manual_seed(0)
    for number, model in enumerate(
        (
            Wav2Vec2ForPreTraining(builders.encoder_config("wav2vec2", codevector_dim=16, proj_codevector_dim=8)),
            WavLMForSequenceClassification(builders.encoder_config("wavlm", use_weighted_layer_sum=True)),
        )
    ):
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        Wav2Vec2FeatureExtractor().save_pretrained(folder)
        grafted, _ = graft_in_memory(folder, lm)
        expected = left(getattr(model, model.base_model_prefix).state_dict())
        assert all(torch.equal(value, expected[name]) for name, value in grafted.audio_tower.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("wavlm.encoder.layers.1.attention.k_proj.weight"), "lacks tensor encoder.layers.1.attention.k_proj.weight:"),
        (lambda tensors: tensors.update({"wavlm.encoder.layers.2.attention.k_proj.weight": torch.zeros(16, 16)}), "has an extra tensor .*layers.2"),
        (lambda tensors: tensors.update({"decoder.embed.weight": torch.zeros(2)}), "has an extra tensor decoder.embed.weight"),
        (
            lambda tensors: tensors.update({"wavlm.encoder.layer_norm.weight": torch.zeros(8)}),
            "another shape for tensor encoder.layer_norm.weight",
        ),
    ],
)
def test_everything_else_is_strict(tmp_path: Path, lm: Path, change: Any, message: str) -> None:
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", "wavlm", head=True)
    tensors = load_file(encoder / "model.safetensors")
    change(tensors)
    save_file(tensors, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=message):
        graft_in_memory(encoder, lm)


def test_parts_come_in_the_precision_and_on_the_device_that_were_asked_for(lm: Path, tmp_path: Path) -> None:
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", "hubert-base")
    model, processor = graft_in_memory(
        encoder, lm, projector="mlp", frame_stack=8, dtype=torch.bfloat16, device="cpu", language_model_options={"attn_implementation": "eager"}
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.language_model.config._attn_implementation == "eager"
    assert (model.config.projector_type, model.config.frame_stack, processor.frame_stack) == ("mlp", 8, 8)
    batch = processor([processor.build_prompt(TURN)] * 2, audio=[builders.tone(1.0), builders.tone(0.3)])
    with torch.no_grad():
        assert torch.isfinite(model(**batch).logits).all()


@pytest.mark.parametrize("projector", PROJECTORS)
def test_match_rms_false_leaves_the_published_start(lm: Path, projector: str) -> None:
    matched, _ = graft_in_memory("tiny-encoder", lm, projector, seed=3)
    published, _ = graft_in_memory("tiny-encoder", lm, projector, match_rms=False, seed=3)
    again, _ = graft_in_memory("tiny-encoder", lm, projector, match_rms=False, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(published.projector.parameters(), again.projector.parameters(), strict=True))
    last = published.projector.last.weight.detach()
    if projector == "linear":
        # 4 * 256 inputs, 32 outputs: the spread of 32,768 draws is known to a percent.
        assert float(last.std()) == pytest.approx(published.language_model.config.initializer_range, rel=0.02)
        assert abs(float(last.mean())) < 0.001
        return
    torch.manual_seed(3)
    fresh = build_projector(AudioGraftConfig(published.config.audio_config, published.config.text_config, projector, frame_stack=4))
    assert all(torch.equal(a, b) for a, b in zip(published.projector.parameters(), fresh.parameters(), strict=True))
    # Nothing but the last layer's scale is another with match_rms.
    ratio = matched.projector.last.weight.detach() / last
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio), rtol=1e-4, atol=0)


def test_parts_that_do_not_fit_are_one_line(tmp_path: Path, lm: Path) -> None:
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", "wavlm")
    with pytest.raises(ConfigError, match="pad_to_window: WavLM takes clips of any length"):
        graft(encoder, lm, tmp_path / "out", pad_to_window=True)
    WhisperFeatureExtractor().save_pretrained(encoder)
    with pytest.raises(ConfigError, match=r"gives 80 values a frame, the encoder takes 1: use the preprocessor_config\.json of the encoder's own"):
        graft(encoder, lm, tmp_path / "out")
    (encoder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"can't load preprocessor_config\.json of .*encoder: ") as raised:
        graft(encoder, lm, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_language_model_without_a_chat_template_is_one_line(tmp_path: Path) -> None:
    lm = builders.lm_checkpoint(tmp_path / "lm")
    for file in ("chat_template.jinja", "tokenizer_config.json"):
        path = lm / file
        if path.exists():
            path.unlink()
    with pytest.raises(ConfigError, match="has no chat template: use the language model's instruct variant") as raised:
        graft("tiny-encoder", lm, tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_widths_that_differ_are_one_line(tmp_path: Path, lm: Path) -> None:
    """A projector of another language model's width in a saved graft."""
    graft("tiny-encoder", lm, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    tensors["projector.linear_2.weight"] = torch.zeros(48, 16)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"has another shape for tensor projector\.linear_2\.weight"):
        load_graft(tmp_path / "out")


def test_an_encoder_nobody_knows_is_one_line(tmp_path: Path, lm: Path) -> None:
    with pytest.raises(ConfigError, match="tiny-lm: qwen2 is no audio encoder that can be grafted: use one of Whisper, WavLM, HuBERT, wav2vec 2.0"):
        graft("tiny-lm", lm, tmp_path / "out")


def test_a_saved_graft_of_raw_waveforms_needs_no_weights_to_count(tmp_path: Path, lm: Path) -> None:
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", "wavlm")
    graft(encoder, lm, tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()
    front_end = load_graft_processor(tmp_path / "out").front_end
    assert front_end.audio_tokens(front_end.feature_frames(480_000)) == 375
    assert AutoModel.from_pretrained(encoder)._get_feat_extract_output_lengths(480_000) == 1499
