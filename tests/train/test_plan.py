"""The plan's numbers: against published systems, against arithmetic by hand, and against real models, adapters, tensors and batches."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM, WhisperConfig

from audiograft.cli import main
from audiograft.model import AudioGraftConfig, load_graft
from audiograft.model.adapters import save_adapter
from audiograft.model.lora import LoraSettings, inject_lora, lora_parameters
from audiograft.model.quantise import decoder_linears
from audiograft.train.plan.anatomy import Anatomy, TowerFlops, count
from audiograft.train.plan.backbones import find_config, known_backbones
from audiograft.train.plan.flops import Example, example_flops
from audiograft.train.plan.gpus import find_gpus
from audiograft.train.plan.memory import NF4_BYTES, Batch, layer_activation_bytes, total, train_memory
from audiograft.train.plan.report import Options, plan_folder, plan_recipe
from audiograft.train.recipe import DataRecipe, GraftRecipe, LoraRecipe, Recipe, load_recipe
from audiograft.train.stages import prepare_stage
from audiograft.types import ConfigError, DataError

RECIPES = Path(__file__).resolve().parent.parent.parent / "recipes"
REFERENCE = RECIPES / "reference"
MLP = "lora.language_model=[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"
OPTIONS = Options(find_gpus("a100-80"))

PUBLISHED = {
    ("system-a", ()): {"projector_params": 4_587_520, "lora_params": 161_480_704, "checkpoint_tensors": 1218, "audio_tokens_per_30s": 1500},
    ("system-b", ()): {"projector_params": 9_481_344, "lora_params": 86_245_376, "trainable_params": 95_726_720},
    ("system-c", ()): {"lora_params": 20_709_376, "lora_params_by_scope": {"language_model": 16_777_216, "audio_tower": 3_932_160, "projector": 0}},
    ("system-c", ("lora.audio_tower=[]",)): {"lora_params": 16_777_216},
    ("system-c", (MLP,)): {"lora_params": 43_909_120},
    ("system-c", (MLP, "lora.audio_tower=[]")): {"lora_params": 39_976_960},
}


@pytest.mark.parametrize(("system", "overrides"), PUBLISHED)
def test_published_systems_have_their_published_sizes(system: str, overrides: tuple[str, ...]) -> None:
    plan = plan_recipe(REFERENCE / system / "finetune.yaml", overrides, OPTIONS)
    expected = PUBLISHED[system, overrides]
    assert {key: plan[key] for key in expected} == expected
    # As trained, in fp32; system C's projector is the stock model's own and no part of its adapter.
    assert plan["adapter_bytes"] == 4 * plan["trainable_params"]
    assert plan["train_memory_bytes"] == pytest.approx(sum(plan["train_memory"].values()), abs=len(plan["train_memory"]))
    assert plan["infer_memory_bytes"] > 2 * plan["total_params"] > plan["infer_memory_nf4_bytes"]


BACKBONES = {
    "Qwen/Qwen2-Audio-7B-Instruct": 8_397_094_912,
    "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "distil-whisper/distil-large-v3": 756_405_760,
    "facebook/hubert-large-ll60k": 315_438_720,
    "facebook/w2v-bert-2.0": 580_493_120,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "microsoft/wavlm-base-plus": 94_381_936,
    "microsoft/wavlm-large": 315_453_120,
    "openai/whisper-base": 72_593_920,
    "openai/whisper-large-v2": 1_543_304_960,
    "openai/whisper-large-v3": 1_543_490_560,
    "openai/whisper-large-v3-turbo": 808_878_080,
    "openai/whisper-medium": 763_857_920,
    "openai/whisper-small": 241_734_912,
    "openai/whisper-tiny": 37_760_640,
}
"""Parameters of the published weights, decoders of encoders included."""


def test_shipped_dimensions_give_the_size_of_the_published_weights() -> None:
    classes: dict[str, Any] = dict.fromkeys(("llama", "qwen2", "qwen3"), AutoModelForCausalLM)
    classes |= {"qwen2_vl": AutoModelForImageTextToText, "qwen2_audio": AutoModelForMultimodalLM}
    sizes = {}
    for name in known_backbones():
        config = find_config(name, "model")
        with torch.device("meta"):
            sizes[name] = classes.get(config.model_type, AutoModel).from_config(config).num_parameters()
    assert sizes == BACKBONES


class TestArithmetic:
    """FLOPs of system A's 20,000 clips of 10 s with 66 text tokens, as worked out by hand: 2.274 TFLOP for a window, 6.525 billion weights."""

    CLIPS = 20_000

    @staticmethod
    def anatomy(graft: GraftRecipe, stage: Any = "align") -> tuple[Anatomy, Recipe]:
        recipe = Recipe(stage, "out", DataRecipe(("data",)), graft=graft, precision="bf16")
        config = AudioGraftConfig(
            find_config(graft.audio_encoder, ""),
            find_config(graft.language_model, ""),
            graft.projector,
            None,
            graft.frame_stack,
            graft.pad_to_window,
            0,
        )
        return count(config, recipe, True), recipe

    @pytest.mark.parametrize(
        ("graft", "petaflops"),
        [
            (GraftRecipe("openai/whisper-large-v3-turbo", "Qwen/Qwen2-VL-7B-Instruct", "linear", 1, pad_to_window=True), 866),
            (GraftRecipe("openai/whisper-large-v3-turbo", "Qwen/Qwen2-VL-7B-Instruct", "swiglu", 4), 116),
        ],
        ids=["as published", "trimmed, 80 ms a token"],
    )
    def test_the_whole_of_system_a(self, graft: GraftRecipe, petaflops: int) -> None:
        anatomy, recipe = self.anatomy(graft)
        frames = anatomy.feature_frames(160_000)
        example = Example((frames,), anatomy.front_end.audio_tokens(frames), 0, 66, 10.0)
        terms = example_flops(anatomy, recipe, example)
        by_hand = terms["encoder"] + terms["language_model"] + terms["head"]
        assert round(by_hand * self.CLIPS / 1e15) == petaflops
        # What that sum leaves out: attention inside the language model, and the projector.
        heads = 4 * example.positions**2 * 3584 * 28 / 2
        assert terms["attention"] == pytest.approx(3 * heads)
        assert terms["projector"] == 6 * anatomy.projector_linears * example.audio_tokens
        assert sum(terms.values()) < 1.05 * by_hand

    def test_the_encoder(self) -> None:
        anatomy, _ = self.anatomy(GraftRecipe("openai/whisper-large-v3-turbo", "Qwen/Qwen3-0.6B"))
        width, layers, frames = 1280, 32, 1500
        convolutions = 2 * 3 * (128 * width * 3000 + width * width * frames)
        linears = 2 * frames * layers * (4 * width**2 + 2 * width * 5120)
        attention = 4 * frames**2 * width * layers
        assert anatomy.tower_flops(3000) == convolutions + linears + attention
        assert anatomy.tower_flops(3000) == pytest.approx(2.274e12, rel=1e-3)
        assert anatomy.tower_flops(1000) == pytest.approx(0.676e12, rel=1e-3)

    def test_other_lengths_follow_from_two(self) -> None:
        with torch.device("meta"):
            tower = builders.audio_tower(d_model=64)
        flops = TowerFlops(tower, lambda frames: torch.empty(1, 80, frames, device="meta"), 3000, always_window=False)
        for frames in (20, 200, 777, 2999):
            assert flops(frames) == pytest.approx(flops.measure(frames), rel=0.06 if frames == 20 else 0.01)

    def test_what_multiplies_what(self, tiny: Tiny) -> None:
        """Frozen weights 4 N, with checkpointing 6 N; trained ones 6 N; a cache saves the encoder, LoRA in it costs its backward pass."""
        example = Example((100,), 13, 20, 7, 1.0)

        def terms(**changes: Any) -> dict[str, float]:
            recipe = replace(tiny.recipe, stage="finetune", **changes)
            return example_flops(count(tiny.config, recipe, True), recipe, example)

        plain, again = terms(), terms(gradient_checkpointing=True)
        weights = sum(layer.weight.numel() for layer in decoder_linears(tiny.model).values())
        assert plain["language_model"] == 4 * weights * 40
        assert again["language_model"] == 6 * weights * 40
        assert again["attention"] / plain["attention"] == 4 / 3
        assert again["head"] == plain["head"] == 4 * builders.VOCABULARY_ROWS * 32 * 7
        assert terms(feature_cache="cache")["encoder"] == 0
        tower = terms(lora=LoraRecipe(rank=4, language_model=(), audio_tower=("q_proj",)), train_projector=False)
        assert tower["encoder"] == 2 * plain["encoder"]
        assert tower["lora"] == 6 * (2 * 4 * (16 + 16)) * 50
        assert tower["projector"] == plain["projector"] * 4 / 6
        assert plain["teacher"] == 0 < terms(loss="kl")["teacher"]


class Tiny:
    """A graft of miniature parts in folders, and a recipe that makes it."""

    def __init__(self, folder: Path, family: str = "qwen2") -> None:
        self.encoder, self.lm = folder / "encoder", folder / "lm"
        builders.audio_tower().save_pretrained(self.encoder)
        builders.lm_checkpoint(self.lm, family)
        self.model, self.processor = builders.graft(family)
        self.config = self.model.config
        self.graft = {"audio_encoder": str(self.encoder), "language_model": str(self.lm)}
        self.recipe = Recipe("align", str(folder / "out"), DataRecipe((str(folder / "no-data"),)), graft=GraftRecipe(**self.graft))
        self.path = folder / "finetune.yaml"

    def write(self, **keys: Any) -> Path:
        """The recipe as a file, with some keys changed."""
        tree = {"stage": "finetune", "output_dir": self.recipe.output_dir, "data": {"train": self.recipe.data.train[0]}, "graft": self.graft, **keys}
        self.path.write_text(yaml.safe_dump(tree))
        return self.path

    def plan(self, overrides: Sequence[str] = (), options: Options = OPTIONS, **keys: Any) -> dict[str, Any]:
        return plan_recipe(self.write(**keys), overrides, options)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)


class TestAgainstRealModels:
    @pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3"])  # qwen2's head is tied
    def test_counts(self, tmp_path: Path, family: str) -> None:
        tiny = Tiny(tmp_path, family)
        plan = tiny.plan(lora={"rank": 4, "audio_tower": ["q_proj", "fc1"]})
        tiny.model.save_pretrained(tmp_path / "saved")
        with (tmp_path / "saved" / "model.safetensors").open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        assert plan["checkpoint_tensors"] == len(header.keys() - {"__metadata__"})
        counts = prepare_stage(tiny.model, load_recipe(tiny.path))
        assert plan["projector_params"] == counts.projector
        assert plan["lora_params"] == counts.lora
        assert plan["trainable_params"] == counts.trainable
        assert {scope: n for scope, n in plan["lora_params_by_scope"].items() if n} == counts.lora_by_component
        assert plan["lora_targets_by_scope"]["audio_tower"] == {"q_proj": 2, "fc1": 2}
        assert plan["total_params"] == sum(p.numel() for p in tiny.model.parameters()) - counts.lora

    @pytest.mark.parametrize("keys", [{}, {"train_projector": False, "lora": {"rank": 2, "dora": True}}], ids=["new projector", "dora"])
    def test_the_adapter_takes_what_its_tensors_take(self, tiny: Tiny, tmp_path: Path, keys: dict[str, Any]) -> None:
        plan = tiny.plan(**keys)
        prepare_stage(tiny.model, load_recipe(tiny.path))
        save_adapter(tiny.model, tiny.processor, tmp_path / "adapter", {"graft": tiny.graft}, {}, {})
        saved = 0
        for path in (tmp_path / "adapter").rglob("*.safetensors"):
            saved += path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")
        assert plan["adapter_bytes"] == saved

    def test_a_trained_graft_is_planned_from_its_folder(self, tiny: Tiny, tmp_path: Path) -> None:
        builders.graft(projector="mlp", frame_stack=2)[0].save_pretrained(tmp_path / "align")
        expected = load_graft_projector(tmp_path / "align", builders.graft(projector="mlp", frame_stack=2)[1])
        plan = tiny.plan(model=str(tmp_path / "align"))
        assert (plan["projector_params"], plan["audio_tokens_per_30s"]) == (expected, 750)
        # Gone, the graft section says what it would be.
        assert tiny.plan(model=str(tmp_path / "not-yet"))["audio_tokens_per_30s"] == 375

    def test_an_adapter_leads_to_its_base(self, tiny: Tiny, tmp_path: Path) -> None:
        save_adapter(tiny.model, tiny.processor, tmp_path / "adapter", {"graft": tiny.graft | {"frame_stack": 8}}, {}, {})
        tree = {"stage": "finetune", "output_dir": "out", "data": {"train": "no-data"}, "model": str(tmp_path / "adapter")}
        (tmp_path / "next.yaml").write_text(yaml.safe_dump(tree))
        assert plan_recipe(tmp_path / "next.yaml", (), OPTIONS)["audio_tokens_per_30s"] == 188

    @pytest.mark.parametrize(("kind", "tokens"), [("qwen2_audio", 750), ("voxtral", 375), ("audioflamingo3", 750), ("granite_speech", 303)])
    def test_stock_models(self, tiny: Tiny, tmp_path: Path, kind: str, tokens: int) -> None:
        config = builders.stock_config(kind)
        config.save_pretrained(tmp_path / kind)
        tree = {"stage": "finetune", "output_dir": "out", "data": {"train": "no-data"}, "model": str(tmp_path / kind), "train_projector": False}
        (tmp_path / "stock.yaml").write_text(yaml.safe_dump(tree))
        plan = plan_recipe(tmp_path / "stock.yaml", (), OPTIONS)
        real = builders.STOCK_FAMILIES[kind].model_class(config)
        assert plan["total_params"] == sum(p.numel() for p in real.parameters())
        if kind == "voxtral":
            tokens = 1500 * 16 // 64
        assert plan["audio_tokens_per_30s"] == pytest.approx(tokens, abs=3 if kind == "granite_speech" else 0)
        assert plan["adapter_bytes"] == 4 * plan["lora_params"]
        # Whisper's window whatever the clip's length, and any length.
        short, long = (plan_recipe(tmp_path / "stock.yaml", (), replace(OPTIONS, clip_s=s))["flops_per_example"]["encoder"] for s in (1.0, 10.0))
        assert (short < long) == (kind == "granite_speech")

    @pytest.mark.parametrize("kind", ["wavlm", "wav2vec2-bert"])
    def test_other_encoders(self, tiny: Tiny, tmp_path: Path, kind: str) -> None:
        builders.encoder_checkpoint(tmp_path / kind, kind)
        plan = tiny.plan(["lora.audio_tower=[q_proj]" if kind == "wavlm" else "lora.rank=2", f"graft.audio_encoder={tmp_path / kind}"])
        assert plan["audio_tokens_per_30s"] == 375
        assert plan["flops_per_example"]["encoder"] > 0


def load_graft_projector(folder: Path, processor: Any) -> int:
    """Parameters of a saved graft's projector."""
    processor.save_pretrained(folder)
    return sum(p.numel() for p in load_graft(folder)[0].projector.parameters())


class TestMemory:
    @pytest.mark.parametrize("family", ["llama", "qwen3"])
    @pytest.mark.parametrize("rank", [0, 4])
    def test_activations_are_what_autograd_keeps(self, family: str, rank: int) -> None:
        """One decoder layer more, and that many bytes more per position; bf16, with pads, without dropout, which CPUs keep in fp32."""
        positions = 96
        kept = [_kept_bytes(family, rank, layers, positions) for layers in (2, 3)]
        recipe = Recipe("finetune", "", DataRecipe(("",)), precision="bf16", lora=LoraRecipe(rank=rank or 1))
        size = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "head_dim": 16}
        config = AudioGraftConfig(WhisperConfig(encoder_layers=1), AutoConfig.for_model(family, **_sized(family, 2, size)), audio_token_id=0)
        anatomy = count(config, recipe, True)
        if not rank:
            anatomy = replace(anatomy, lora=anatomy.lora | {"language_model": replace(anatomy.lora["language_model"], params=0, inputs=0, ranks=0)})
        expected = layer_activation_bytes(anatomy, recipe)
        # Norms keep a number or two a row, attention its mask, and autocast copies of the adapters' weights, which are terms of their own.
        copies = 2 * anatomy.lora["language_model"].params / 2 + 2 * positions**2
        assert kept[1] - kept[0] == pytest.approx(positions * expected + copies, rel=0.03)

    def test_terms_follow_what_they_depend_on(self, tiny: Tiny) -> None:
        plain = tiny.plan(precision="bf16", lora={"rank": 4})
        again = tiny.plan(precision="bf16", lora={"rank": 4}, gradient_checkpointing=True)
        double = tiny.plan(precision="bf16", lora={"rank": 4}, tokens_per_batch=4096)
        wider = tiny.plan(precision="bf16", lora={"rank": 16})
        small = tiny.plan(precision="bf16", quantisation="nf4")
        assert again["train_memory"]["activations"] < plain["train_memory"]["activations"]
        assert double["train_memory"]["activations"] == pytest.approx(2 * plain["train_memory"]["activations"], rel=0.1)
        assert double["train_memory"]["logits"] == pytest.approx(2 * plain["train_memory"]["logits"], rel=0.1)
        for term in ("trained_weights", "gradients", "optimiser", "activations"):
            assert wider["train_memory"][term] > plain["train_memory"][term]
        weights = sum(layer.weight.numel() for layer in decoder_linears(tiny.model).values())
        assert plain["train_memory"]["frozen_weights"] - small["train_memory"]["frozen_weights"] == 2 * weights
        assert small["train_memory"]["nf4_weights"] == round(weights * NF4_BYTES)
        assert tiny.plan(precision="fp32")["train_memory"]["frozen_weights"] == 2 * plain["train_memory"]["frozen_weights"]
        assert tiny.plan(precision="bf16", frozen_precision="fp32")["train_memory"]["frozen_weights"] == 2 * plain["train_memory"]["frozen_weights"]

    def test_weights_gradients_and_optimiser_by_hand(self, tiny: Tiny) -> None:
        recipe = replace(tiny.recipe, stage="align", precision="bf16")
        anatomy = count(tiny.config, recipe, True)
        memory = train_memory(anatomy, recipe, Batch(100, 10, 40, 160))
        projector = sum(p.numel() for p in tiny.model.projector.parameters())
        others = sum(p.numel() for p in tiny.model.parameters()) - projector
        assert memory["frozen_weights"] == 2 * others
        assert [memory[term] / projector for term in ("trained_weights", "gradients", "optimiser")] == [6, 4, 8]
        assert memory["logits"] == 10 * builders.VOCABULARY_ROWS * 14
        assert total(memory) == sum(memory.values())

    def test_nf4_takes_what_bitsandbytes_takes(self) -> None:
        functional = pytest.importorskip("bitsandbytes.functional")
        weight = torch.randn(1024, 2048)
        packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        stored = [packed, state.absmax, state.state2.absmax]
        assert sum(tensor.numel() * tensor.element_size() for tensor in stored) == weight.numel() * NF4_BYTES

    def test_inference(self, tiny: Tiny) -> None:
        plan = tiny.plan()
        memory = plan["infer_memory"]
        assert memory["weights"] == 2 * plan["total_params"]
        # 2 layers, 2 key-value heads of width 8, keys and values, 2 bytes; 375 audio tokens, 33 of the prompt, 256 new ones.
        assert memory["kv_cache"] == 2 * 2 * (2 * 8) * 2 * (375 + 33 + 256)


def _sized(family: str, layers: int, size: dict[str, int]) -> dict[str, Any]:
    return {"vocab_size": 50, "num_hidden_layers": layers, "num_key_value_heads": 2, "max_position_embeddings": 512, **size}


def _kept_bytes(family: str, rank: int, layers: int, positions: int) -> int:
    """What autograd keeps between forward and backward pass of a decoder in bf16, parameters left out."""
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "head_dim": 16}
    config = AutoConfig.for_model(family, **_sized(family, layers, size))
    model = AutoModel.from_config(config).to(torch.bfloat16).requires_grad_(False)
    if rank:
        inject_lora(model, [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)], LoraSettings(rank, 8.0))
        for parameter in lora_parameters(model):
            parameter.data = parameter.data.float()
    embeds = torch.randn(1, positions, 64, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(1, positions, dtype=torch.long)
    mask[0, -3:] = 0
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other tensor gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.train()(inputs_embeds=embeds, attention_mask=mask)
    return sum(kept.values())


class TestData:
    def manifest(self, folder: Path, rows: Sequence[dict[str, Any]]) -> str:
        path = folder / "manifest.jsonl"
        path.write_text("".join(json.dumps({"id": str(n), **row}) + "\n" for n, row in enumerate(rows)))
        return str(path)

    def test_the_cost_of_a_run_is_the_sum_over_its_rows(self, tiny: Tiny, tmp_path: Path) -> None:
        rows = [{"audio": f"{n}.wav", "text": "x" * 40, "duration_s": seconds} for n, seconds in enumerate([1.0, 2.0, 2.0, 30.0])]
        options = replace(OPTIONS, manifests=[self.manifest(tmp_path, rows)])
        plan = tiny.plan(epochs=3, tokens_per_batch=512, gradient_accumulation_steps=2, options=options)
        # 13 + 25 + 25 + 375 audio tokens; each row has an answer of 11 and a prompt of 26 tokens.
        assert plan["positions_per_example"] == pytest.approx((13 + 25 + 25 + 375) / 4 + 37, abs=0.1)
        assert plan["longest_example_positions"] == 375 + 37
        # The three short rows fit into one batch, the long one has its own: one step an epoch.
        assert plan["steps"] == 3
        assert plan["run_flops"] == pytest.approx(3 * 4 * sum(plan["flops_per_example"].values()), rel=1e-6)
        gpu = plan["gpus"][0]
        assert gpu["gpu_hours"] == pytest.approx(plan["run_flops"] / (312e12 * 0.4) / 3600)
        assert gpu["wall_time_8_gpus_h"] == pytest.approx(gpu["gpu_hours"] / 8)
        assert tiny.plan(epochs=3, max_steps=2, tokens_per_batch=512, options=options)["steps"] == 2

    def test_durations_come_from_headers_where_the_manifest_has_none(self, tiny: Tiny, tmp_path: Path) -> None:
        clips = [builders.tone(0.5), builders.tone(1.5)]
        builders.write_clips(tmp_path / "clips", clips, ["one", "two"])
        plan = tiny.plan(options=replace(OPTIONS, manifests=[str(tmp_path / "clips")]))
        assert plan["audio_s_per_example"] == 1.0
        # The recipe's own data, where it is there, needs no --data.
        assert tiny.plan(data={"train": str(tmp_path / "clips")})["audio_s_per_example"] == 1.0

    def test_rows_that_training_leaves_out(self, tiny: Tiny, tmp_path: Path) -> None:
        rows = [
            {"audio": "a.wav", "text": "one", "duration_s": 2.0},
            {"audio": "b.wav", "text": "too long", "duration_s": 31.0},
            {"audio": "c.wav", "duration_s": 1.0},
            {"audio": "missing.wav", "text": "one"},
        ]
        plan = tiny.plan(options=replace(OPTIONS, manifests=[self.manifest(tmp_path, rows)]))
        assert plan["rows_left_out"] == 3
        with pytest.raises(DataError, match="no row can be trained on"):
            tiny.plan(options=replace(OPTIONS, manifests=[self.manifest(tmp_path, rows[1:])]))

    def test_batches_that_hold_no_row_are_refused_as_in_training(self, tiny: Tiny, tmp_path: Path) -> None:
        rows = [{"audio": "a.wav", "text": "one", "duration_s": 30.0}]
        with pytest.raises(ConfigError, match="tokens_per_batch: 300"):
            tiny.plan(tokens_per_batch=300, options=replace(OPTIONS, manifests=[self.manifest(tmp_path, rows)]))
        with pytest.raises(ConfigError, match="tokens_per_batch: 300"):
            tiny.plan(tokens_per_batch=300, options=replace(OPTIONS, clip_s=30.0))
        # Without a word on their length, assumed clips are as long as fits.
        assert tiny.plan(tokens_per_batch=100)["audio_s_per_example"] == 2.5

    def test_padding_to_the_window_costs_all_of_it(self, tiny: Tiny) -> None:
        short, padded = tiny.plan(), tiny.plan(graft=tiny.graft | {"pad_to_window": True})
        assert (short["positions_per_example"], padded["positions_per_example"]) == (125 + 66, 375 + 66)


class TestFolder:
    def test_stages_and_their_sum(self, tiny: Tiny, tmp_path: Path) -> None:
        tiny.write(max_steps=10)
        align = yaml.safe_load(tiny.path.read_text()) | {"stage": "align", "max_steps": 30}
        (tmp_path / "align.yaml").write_text(yaml.safe_dump(align))
        plan = plan_folder(tmp_path, (), OPTIONS)
        assert [stage["stage"] for stage in plan["stages"]] == ["align", "finetune"]
        assert [stage["steps"] for stage in plan["stages"]] == [30, 10]
        assert plan["stage"] == "finetune"
        assert plan["lora_params"] > 0 == plan["stages"][0]["lora_params"]
        for key in ("run_flops", "flops_per_1000_h"):
            assert plan["total"][key] == sum(stage[key] for stage in plan["stages"])
        hours = [stage["gpus"][0]["gpu_hours"] for stage in (*plan["stages"], plan["total"])]
        assert hours[2] == pytest.approx(hours[0] + hours[1])

    def test_overrides_of_one_stage_are_for_that_stage_of_a_folder(self, tiny: Tiny, tmp_path: Path) -> None:
        finetune = tiny.write()
        align = tmp_path / "align.yaml"
        align.write_text(yaml.safe_dump(yaml.safe_load(finetune.read_text()) | {"stage": "align"}))
        given = ["lora_gate=audio", "lora.rank=2", "train_projector=false", "max_steps=7"]
        plan = plan_folder(tmp_path, given, OPTIONS)
        assert plan["stages"] == [plan_recipe(align, ["max_steps=7"], OPTIONS), plan_recipe(finetune, given, OPTIONS)]
        with pytest.raises(ConfigError, match="align.yaml: lora_gate is read by the stage finetune alone"):
            plan_recipe(align, given[:1], OPTIONS)
        finetune.unlink()
        for override, said in (("lora_gate=audio", "lora_gate is read by"), ("lora.rank=2", "lora is read by"), ("train_projector=false", "nothing")):
            with pytest.raises(ConfigError, match=said):
                plan_folder(tmp_path, [override], OPTIONS)

    def test_a_folder_without_recipes(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no recipe here"):
            plan_folder(tmp_path, (), OPTIONS)


class TestCommandLine:
    def test_json(self, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["plan", str(tiny.write()), "--json", "--gpu", "rtx-4090", "--mfu", "0.5", "--set", "lora.rank=2"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert [gpu["name"] for gpu in plan["gpus"]] == ["RTX 4090"]
        assert plan["gpus"][0]["step_s"] == pytest.approx(plan["flops_per_step"] / (165.2e12 * 0.5), rel=1e-6)
        assert plan["lora_params"] == count(tiny.config, load_recipe(tiny.path, ["lora.rank=2"]), True).lora_params

    def test_clips_outside_the_folder_of_a_manifest(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tiny.write()
        (tmp_path / "rows.jsonl").write_text('{"audio": "/a.wav", "text": "one", "duration_s": 2.0}\n')
        command = ["plan", str(tiny.path), "--data", str(tmp_path / "rows.jsonl"), "--json"]
        assert main(command) == 2
        assert "allow it with --allow-outside" in capsys.readouterr().err
        assert main([*command, "--allow-outside"]) == 0
        assert json.loads(capsys.readouterr().out)["audio_s_per_example"] == 2.0

    def test_tables(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        builders.write_clips(tmp_path / "clips", [builders.tone(0.5)], ["one"])
        tiny.write()
        assert main(["plan", str(tmp_path), "--data", str(tmp_path / "clips")]) == 0
        shown = capsys.readouterr().out
        plan = plan_folder(tmp_path, (), replace(OPTIONS, manifests=[str(tmp_path / "clips")]))
        for number in (plan["projector_params"], plan["lora_params"], plan["total_params"], plan["audio_tokens_per_30s"]):
            assert f"{number:,}" in shown
        for word in ("audio_tower", "q_proj x 2", "optimiser", "attention", "MI300X", "are no model by themselves"):
            assert word in shown
        assert max(map(len, shown.splitlines())) <= 80

    @pytest.mark.parametrize(
        ("keys", "found", "said"),
        [
            ({}, ("always", False), "lora_gate: always: LoRA acts on all rows, and answers to text alone change"),
            ({"lora_gate": "audio", "save": "adapter"}, ("audio", False), "LoRA acts on rows with audio alone, and answers to text stay as they are"),
            ({"lora_gate": "audio"}, ("audio", True), "lora_gate: audio, which save: merged gives up"),
            ({"stage": "align"}, (None, False), None),
            ({"lora": {"language_model": [], "audio_tower": "all"}}, (None, False), None),
        ],
    )
    def test_the_gate(self, tiny: Tiny, capsys: pytest.CaptureFixture[str], keys: dict[str, Any], found: Any, said: str | None) -> None:
        plan = tiny.plan(**keys)
        assert (plan["lora_gate"], plan["gate_given_up"], plan["has_eyes"]) == (*found, False)
        assert main(["plan", str(tiny.path)]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert said in shown if said else "lora_gate" not in shown

    def test_the_gate_of_a_model_with_eyes(self, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
        tiny.write(graft=tiny.graft | {"language_model": "Qwen/Qwen2-VL-2B-Instruct"})
        assert main(["plan", str(tiny.path)]) == 0
        assert "answers to text and pictures alone change" in " ".join(capsys.readouterr().out.split())

    def test_a_gpu_that_is_too_small(self, tiny: Tiny) -> None:
        plan = tiny.plan(tokens_per_batch=7 * 10**6, options=Options(find_gpus(None)))
        fits = {gpu["name"]: gpu["fits"] for gpu in plan["gpus"]}
        assert not fits["RTX 4070"]
        assert fits["MI300X"]
        assert all(gpu["fits"] == (plan["train_memory_bytes"] <= 0.93 * gpu["memory_bytes"]) for gpu in plan["gpus"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graft": {"audio_encoder": "openai/whisper-small", "language_model": "Qwen/Qwen9-1T"}}, r"language_model: the dimensions of Qwen/Qwen9-1T"),
        ({"graft": {"audio_encoder": "someone/ear", "language_model": "Qwen/Qwen3-0.6B"}}, r"pass a folder that holds its config\.json"),
        ({"graft": {"audio_encoder": "Qwen/Qwen3-0.6B", "language_model": "Qwen/Qwen3-0.6B"}}, "qwen3 is no audio encoder"),
        ({"graft": None, "model": "runs/of/someone/align"}, "is not there yet"),
        ({"graft": None, "model": "Qwen/Qwen3-0.6B"}, "without ears"),
        ({"lora": {"language_model": ["wqkv"]}}, "matches no linear layer"),
        ({"lora": {"rank": 100}}, "exceeds a dimension"),
    ],
)
def test_what_cannot_be_planned(tiny: Tiny, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.plan(**changes)
    assert main(["plan", str(tiny.path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_mixture_of_experts_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    AutoConfig.for_model(
        "qwen3_moe", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4,
        moe_intermediate_size=16, vocab_size=100,
    ).save_pretrained(tmp_path / "moe")  # fmt: skip
    with pytest.raises(ConfigError, match="mixture of experts"):
        tiny.plan(graft=tiny.graft | {"language_model": str(tmp_path / "moe")})


def test_unknown_gpus_are_refused() -> None:
    assert [gpu.name for gpu in find_gpus("4090")] == ["RTX 4090"]
    assert math.isclose(find_gpus("H200")[0].bf16_flops, 989e12)
    with pytest.raises(ConfigError, match="--gpu tpu"):
        find_gpus("tpu")
