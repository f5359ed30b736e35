"""Checkpoints of published systems: the layouts that lie on the hub, opened without any fork, against a reference computed from stock parts."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import builders
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, BitsAndBytesConfig, LlamaForCausalLM, Qwen2VLForConditionalGeneration, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from audiograft.messages import audio_messages
from audiograft.model import load_model, load_processor
from audiograft.model.checkpoint import save_graft
from audiograft.model.inspect import inspect_model
from audiograft.model.load import Bases
from audiograft.model.lora import is_4bit, lora_modules
from audiograft.model.merge import merge_adapter
from audiograft.model.quantise import quantised_modules
from audiograft.types import ConfigError

INSTRUCTION = "Transcribe this audio."


def system_a_prompt(n_tokens: int) -> str:
    audio = "<|audio_pad|>" * n_tokens
    return f"<|im_start|>user\n<|audio_bos|>{audio}<|audio_eos|>\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"


def system_a_reference(folder: Path, language_model: nn.Module, waveform: torch.Tensor, input_ids: torch.Tensor, audio_token_id: int) -> torch.Tensor:
    """Logits of system A by its published recipe: stock Whisper on 30 s, one Linear, and Qwen2-VL on the mixed embeddings."""
    tensors = {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    encoder = WhisperEncoder(WhisperConfig(d_model=64, encoder_layers=2, encoder_attention_heads=1, encoder_ffn_dim=96, num_mel_bins=80)).eval()
    encoder.load_state_dict({name.removeprefix("audio_encoder."): tensor for name, tensor in tensors.items() if name.startswith("audio_encoder.")})
    features = WhisperFeatureExtractor()(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        audio = encoder(features).last_hidden_state[0] @ tensors["audio_projector.weight"].T
        embeddings = language_model.get_input_embeddings()(input_ids)
        embeddings[input_ids == audio_token_id] = audio
        positions = torch.arange(input_ids.shape[1])[None, None].expand(3, 1, -1)
        logits: torch.Tensor = language_model(inputs_embeds=embeddings, position_ids=positions).logits
    return logits


@pytest.mark.parametrize("names", ["old", "new"])
def test_system_a_gives_the_logits_of_its_published_computation(tmp_path: Path, names: str) -> None:
    language_model = builders.system_a(tmp_path, names)
    model, processor = load_model(tmp_path)
    waveform = builders.tone(1.3)
    batch = processor([processor.build_prompt(audio_messages(INSTRUCTION))], audio=[waveform])
    written = processor.tokenizer(system_a_prompt(1500), add_special_tokens=False, return_tensors="pt").input_ids
    assert torch.equal(batch["input_ids"], written)
    assert int((written == processor.audio_token_id).sum()) == 1500
    with torch.no_grad():
        ours = model(**batch).logits
    reference = system_a_reference(tmp_path, language_model, torch.from_numpy(waveform), written, processor.audio_token_id)
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        other = model(**processor([processor.build_prompt(audio_messages(INSTRUCTION))], audio=[builders.tone(1.3, 1000.0)])).logits
    assert (other - ours).abs().max() > 1e-3


def test_system_a_needs_no_head_count_and_keeps_stock_configuration(tmp_path: Path) -> None:
    builders.system_a(tmp_path)
    model, processor = load_model(tmp_path)
    assert model.config.audio_config.encoder_attention_heads == 1
    assert model.config.projector_type == "linear"
    assert model.config.pad_to_window
    assert not hasattr(model.config.text_config, "use_audio_encoder")
    assert model.config.audio_token_id == processor.tokenizer.convert_tokens_to_ids("<|audio_pad|>")
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.language_model.generation_config.eos_token_id


def test_system_a_learns_answers_with_a_space_before_them(tmp_path: Path) -> None:
    builders.system_a(tmp_path)
    processor = load_processor(tmp_path)
    row = processor.training_inputs(audio_messages(INSTRUCTION), "hello", [3000])
    ids, labels = row["input_ids"], row["labels"]
    answer = [label for label in labels if label != -100]
    assert processor.tokenizer.decode(answer) == " hello<|im_end|>"
    assert ids[-len(answer) :] == answer


def test_system_a_saved_as_a_graft_is_the_same_model(tmp_path: Path) -> None:
    builders.system_a(tmp_path / "a")
    model, processor = load_model(tmp_path / "a")
    save_graft(model, processor, tmp_path / "graft")
    again, its_processor = load_model(tmp_path / "graft")
    messages = audio_messages(INSTRUCTION)
    batch = processor([processor.build_prompt(messages)], audio=[builders.tone(0.5)])
    its_batch = its_processor([its_processor.build_prompt(messages)], audio=[builders.tone(0.5)])
    assert its_processor.training_inputs(messages, "x", [3000]) == processor.training_inputs(messages, "x", [3000])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, again(**its_batch).logits)


def test_system_a_opens_as_its_final_model_was_most_likely_saved_in_4_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    builders.system_a(tmp_path / "a")
    whole, _ = load_model(tmp_path / "a")
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["audio_projector", "audio_encoder", "lm_head"],
    )  # fmt: skip
    quantised = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "a", quantization_config=config, dtype=torch.float32)
    folder = tmp_path / "nf4"
    quantised.save_pretrained(folder)
    shards = [load_file(shard) for shard in (tmp_path / "a").glob("*.safetensors")]
    audio = {name: tensor for shard in shards for name, tensor in shard.items() if name.startswith("audio_")}
    save_file({**load_file(folder / "model.safetensors"), **audio}, folder / "model.safetensors", {"format": "pt"})
    keys = {"audio_token_id": 320, "audio_hidden_size": 64, "use_audio_encoder": True}
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | keys))
    AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(folder)
    model, processor = load_model(folder)
    assert len(quantised_modules(model)) > 10
    for module in model.modules():
        if is_4bit(module):
            # The packed form that bitsandbytes makes on some CPUs can't hold layers as small as these.
            module.support_avx512bf16_for_cpu = False
    batch = processor([processor.build_prompt(audio_messages(INSTRUCTION))], audio=[builders.tone(0.5)])
    with torch.no_grad():
        difference = model(**batch).logits - whole(**batch).logits
    assert 0 < difference.abs().max() < 0.5
    found = inspect_model(folder)
    assert found.problems == []
    assert len(found.quantised) == len(quantised_modules(model))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("projector", "lacks tensor audio_projector.weight"),
        ("encoder", "lacks tensor audio_encoder.layers.1.fc2.bias"),
        ("sizes", "no whole audio_encoder"),
        ("language model", "lacks tensor model.language_model.layers.1.mlp.up_proj.weight"),
        ("extra", "extra tensor audio_encoder.layers.1.extra"),
    ],
)
def test_a_damaged_system_a_names_the_tensor(tmp_path: Path, damage: str, message: str) -> None:
    builders.system_a(tmp_path)
    victim = {
        "projector": "audio_projector.weight",
        "encoder": "audio_encoder.layers.1.fc2.bias",
        "sizes": "audio_encoder.conv1.weight",
        "language model": "model.layers.1.mlp.up_proj.weight",
        "extra": "",
    }[damage]
    for shard in tmp_path.glob("*.safetensors"):
        tensors = load_file(shard)
        if damage == "extra" and shard.name.startswith("model-00001"):
            tensors["audio_encoder.layers.1.extra"] = torch.ones(1)
        tensors.pop(victim, None)
        save_file(tensors, shard, {"format": "pt"})
    with pytest.raises(ConfigError, match=message) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_a_system_a_tokenizer_without_the_placeholder_is_named(tmp_path: Path) -> None:
    builders.system_a(tmp_path)
    builders.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"its tokenizer lacks <\|audio_pad\|>"):
        load_processor(tmp_path)


def test_plain_qwen2_vl_is_not_taken_for_system_a(tmp_path: Path) -> None:
    builders.qwen2_vl().save_pretrained(tmp_path)
    builders.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="without a graft"):
        load_model(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2_vl"


def system_b_reference(folder: Path, waveform: torch.Tensor, text_ids: torch.Tensor) -> torch.Tensor:
    """Logits of system B by its published recipe, without its two random rows: frames, then text, LoRA by forward hooks at scale 16 / rank."""
    with torch.serialization.safe_globals([Namespace]):
        checkpoint = torch.load(folder / "checkpoint-5" / "checkpoint.pt", weights_only=True)["model"]
    tower = WhisperEncoder.from_pretrained(folder / "whisper").eval()
    llama = LlamaForCausalLM.from_pretrained(folder / "llama").eval()
    state = list(checkpoint["projector"].values())
    features = WhisperFeatureExtractor()(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_features

    def hook(pair: dict[str, torch.Tensor]) -> Callable[..., torch.Tensor]:
        scale = 16 / len(pair["lora_A"])
        return lambda module, inputs, output: output + scale * (inputs[0] @ pair["lora_A"].T) @ pair["lora_B"].T

    for name, pair in checkpoint["lora_layers"].items():
        llama.get_submodule(name).register_forward_hook(hook(pair))
    with torch.no_grad():
        frames = tower(features).last_hidden_state
        middle = nn.functional.gelu(nn.functional.linear(frames, state[0], state[1]))
        audio = nn.functional.layer_norm(nn.functional.linear(middle, state[2], state[3]), (32,), state[4], state[5])
        embeddings = torch.cat([audio, llama.get_input_embeddings()(text_ids)], 1)
        logits: torch.Tensor = llama(inputs_embeds=embeddings).logits
    return logits


@pytest.mark.parametrize("namespace", [False, True])
def test_system_b_gives_the_logits_of_its_published_computation(tmp_path: Path, namespace: bool) -> None:
    folder = builders.system_b(tmp_path, namespace=namespace)
    model, processor = load_model(folder)
    waveform = builders.tone(0.8)
    batch = processor([processor.build_prompt(audio_messages("What is said? <audio>"))], audio=[waveform])
    text_ids = processor.tokenizer("<|begin_of_text|>What is said?", add_special_tokens=False, return_tensors="pt").input_ids
    assert torch.equal(batch["input_ids"][:, 1500:], text_ids)
    assert bool((batch["input_ids"][:, :1500] == processor.audio_token_id).all())
    with torch.no_grad():
        ours = model(**batch).logits
    torch.testing.assert_close(ours, system_b_reference(tmp_path, torch.from_numpy(waveform), text_ids), atol=1e-5, rtol=1e-4)
    assert len(lora_modules(model)) == 6
    assert "never saved" in model.config.note


def test_system_b_opens_by_file_and_its_projector_by_order(tmp_path: Path) -> None:
    folder = builders.system_b(tmp_path, sequential=False)
    model, _ = load_model(folder / "checkpoint.pt")
    stored = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]["projector"]
    assert torch.equal(model.projector.linear_2.weight, stored["layers.2.weight"])
    assert torch.equal(model.projector.layer_norm.bias, stored["layers.3.bias"])


def test_system_b_is_merged_into_a_graft(tmp_path: Path) -> None:
    folder = builders.system_b(tmp_path)
    report = merge_adapter(folder, tmp_path / "whole")
    assert report.passed
    assert report.merged_layers == 6
    merged, processor = load_model(tmp_path / "whole")
    unmerged, its_processor = load_model(folder)
    assert processor.build_prompt(audio_messages("x")) == its_processor.build_prompt(audio_messages("x")) == "<|audio|><|begin_of_text|>x"
    assert merged.config.note == unmerged.config.note
    assert processor.end_of_turn == "<|eot_id|>"


def test_system_bs_bases_can_be_given(tmp_path: Path) -> None:
    folder = builders.system_b(tmp_path, llama_path="meta-llama/Llama-3.2-3B-Instruct", whisper_path="openai/whisper-large-v3-turbo")
    with pytest.raises(ConfigError, match=r"was trained on meta-llama/.* and openai/.*audiograft merge .* --language-model DIR") as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    bases = Bases(language_model=tmp_path / "llama", audio_encoder=tmp_path / "whisper")
    assert load_processor(folder, bases).pad_to_window
    model, _ = load_model(folder, bases=bases)
    assert len(lora_modules(model)) == 6
    assert merge_adapter(folder, tmp_path / "whole", bases=bases).passed


class Evil:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"projector": {}, "lora_layers": {}}, "args": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="could be code: it is not opened") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "can't be read as a checkpoint"),
        ("empty", "can't be read as a checkpoint"),
        ("a state dict", "is no checkpoint of system B"),
        ("another projector", "is a checkpoint of another projector: it holds .*this model's has .*linear_1.weight 24 x 16"),
        ("another language model", "adapts model.layers.5.self_attn.q_proj, which is no linear layer"),
        ("no paths", "does not say which language_model it was trained on"),
        ("ranks", "adapters of the ranks 2, 4"),
    ],
)
def test_a_system_b_that_can_not_be_used_is_one_line(tmp_path: Path, damage: str, message: str) -> None:
    folder = builders.system_b(tmp_path, hidden=64 if damage == "another projector" else 32)
    file = folder / "checkpoint.pt"
    stored = torch.load(file, weights_only=True)
    lora = stored["model"]["lora_layers"]
    if damage == "a state dict":
        stored = {"layer.weight": torch.ones(2)}
    if damage == "another language model":
        lora["model.layers.5.self_attn.q_proj"] = lora.pop("model.layers.0.self_attn.q_proj")
    if damage == "no paths":
        stored["args"] = {}
    if damage == "ranks":
        lora["model.layers.0.self_attn.q_proj"] = {"lora_A": torch.ones(2, 32), "lora_B": torch.ones(32, 2)}
    torch.save(stored, file)
    if damage in ("truncated", "empty"):
        file.write_bytes(file.read_bytes()[: 3000 if damage == "truncated" else 0])
    with pytest.raises(ConfigError, match=message) as error:
        load_model(folder)
    assert "\n" not in str(error.value)
