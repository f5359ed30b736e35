"""The benchmarks' own code: that it runs, what it writes, and what it does where it can't run."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from audiograft.types import ConfigError

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gpu_step() -> ModuleType:
    return load("gpu_step")


@pytest.fixture
def tiny(gpu_step: ModuleType) -> Any:
    return gpu_step.Setting(torch.device("cpu"), True, 1)


def run(gpu_step: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_step.py", *words])
    code: int = gpu_step.main()
    return code


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_without_cuda_gpu_step_is_one_line_and_2(gpu_step: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gpu_step, monkeypatch) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert run(gpu_step, monkeypatch, "--device", "cpu") == 2
    assert "add --tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("only", "training", "transcription"),
    [
        ("A finetune", ["reference", "ours"], []),
        ("B", ["reference", "ours"], ["reference"] * 2 + ["ours"] * 2),
        ("C", ["reference", "ours"], ["reference"] * 2),
    ],
)
# bitsandbytes looks for a faster kernel, and says that there is none.
@pytest.mark.filterwarnings("ignore:.*gemm_4bit.*")
def test_each_system_runs_at_tiny_size(
    gpu_step: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, only: str, training: list[str], transcription: list[str]
) -> None:
    out = tmp_path / "gpu.json"
    assert run(gpu_step, monkeypatch, "--tiny", "--device", "cpu", "--only", only, "--out", str(out)) == 0
    report = json.loads(out.read_text())
    assert [row["variant"] for row in report["training"]] == training
    assert [row["variant"] for row in report["transcription"]] == transcription
    for row in report["training"] + report["transcription"]:
        assert row["status"] == "ok", row
    for row in report["training"]:
        assert min(row["step_s"], row["tokens_per_s"], row["audio_s_per_s"], row["model_flops"], row["trainable_params"]) > 0
    assert all(row["rtfx"] > 0 for row in report["transcription"])
    assert report["versions"]["torch"] == torch.__version__


def test_frozen_layers_compute_again_where_the_recipe_checkpoints(gpu_step: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = {"model": 0, "layer": 0}
    build_model = gpu_step.build_model

    def counted(*args: Any) -> Any:
        model = build_model(*args)
        # Within the layer, whose own hooks stay outside of what is computed again.
        for name, module in (("model", model), ("layer", gpu_step.checkpointed_layers(model)[0].self_attn)):
            module.register_forward_pre_hook(lambda *_, name=name: passes.update({name: passes[name] + 1}))
        return model

    monkeypatch.setattr(gpu_step, "build_model", counted)
    name = gpu_step.TRAINING["A align"][0]
    assert gpu_step.read_recipe(name, tiny).gradient_checkpointing
    gpu_step.train_case(name, tiny)
    assert passes["layer"] == 2 * passes["model"] > 0


def test_a_case_that_fails_does_not_take_the_others_with_it(
    gpu_step: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = iter(
        [torch.OutOfMemoryError("CUDA out of memory"), ConfigError("no bitsandbytes"), RuntimeError("odd\nand more"), MemoryError("out of memory")]
    )
    written = []

    def train_case(name: str, setting: object) -> dict[str, Any]:
        written.append(json.loads((tmp_path / "gpu.json").read_text())["training"] if written else [])
        error = next(errors, None)
        if error:
            raise error
        figures = {"step_s": 1.0, "tokens_per_s": 2.0, "audio_s_per_s": 3.0, "peak_memory_bytes": 4_000_000_000, "mfu": 0.4}
        return figures

    monkeypatch.setattr(gpu_step, "train_case", train_case)
    report = gpu_step.run(tiny, "finetune", tmp_path / "gpu.json")
    assert [row["status"] for row in report["training"]] == ["out of memory", "left out", "failed", "out of memory", "ok", "ok"]
    assert [len(rows) for rows in written] == [0, 1, 2, 3, 4, 5]
    assert report["training"][2]["reason"] == "RuntimeError: odd"
    assert "C finetune   ours       1.000 s a step, 2 tokens/s, 3.0 s of audio/s, 4.0 GB, MFU 40.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "peak_tflops"),
    [
        ("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100-PCIE-40GB", 312), ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362), ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA GeForce GTX 480", None), ("Tesla T4", None),
    ],
)  # fmt: skip
def test_the_peak_is_looked_up_by_the_devices_name(
    gpu_step: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, peak_tflops: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peak = gpu_step.peak_flops(torch.device("cuda"))
    assert peak == (None if peak_tflops is None else peak_tflops * 1e12)


@pytest.mark.parametrize(("name", "lora"), [("reference/system-b/finetune", 86_245_376), ("reference/system-c/finetune", 20_709_376)])
def test_real_sizes_are_those_of_the_published_systems(gpu_step: ModuleType, name: str, lora: int) -> None:
    """Built on the meta device by the code that builds on a GPU."""
    setting = gpu_step.Setting(torch.device("meta"), False, 1)
    recipe = gpu_step.read_recipe(name, setting)
    config, stock = gpu_step.read_config(recipe, setting)
    assert gpu_step.prepare_stage(gpu_step.build_model(config, stock, recipe, setting), recipe).lora == lora


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script at a size that takes milliseconds."""
    module = load("bench")
    encoder = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 80}
    sizes = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    monkeypatch.setattr(module, "DIMENSIONS", {"encoder": encoder, "language_model": sizes})
    monkeypatch.setattr(module, "CLIP_SECONDS", (1.0, 2.0))
    return module


def test_each_step_of_bench_learns_and_4_bits_are_smaller(bench: ModuleType) -> None:
    weights = {}
    for name, variant in (bench.VARIANTS | bench.STEPS).items():
        step, weights[name] = bench.training_step(**variant)
        losses = [step() for _ in range(3)]
        assert losses[2] < losses[0], name
    assert weights["align"] < weights["LoRA"]
    assert weights["4-bit + LoRA"] < weights["align"]


def test_bench_tells_each_step_in_units_of_the_one_before(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "alternate", lambda variants, rounds: dict(zip(variants, (2.0, 3.0, 6.0), strict=True)))
    monkeypatch.setattr(bench, "peak_memory_bytes", lambda name: {"align": (1e6, 3e6), "LoRA": (2e6, 6e6), "4-bit + LoRA": (1e6, 1e6)}[name])
    found = {row["name"]: (row["ours"], row["reference"], row["ratio"]) for row in bench.bench_steps(1)}
    assert found == {
        "step_cost: LoRA over align": (3.0, 2.0, 1.5),
        "step_memory: LoRA over align": (8.0, 4.0, 2.0),
        "step_cost: 4-bit + LoRA over LoRA": (6.0, 3.0, 2.0),
        "step_memory: 4-bit + LoRA over LoRA": (2.0, 8.0, 0.25),
        "step_cost: 4-bit + LoRA over align": (6.0, 2.0, 3.0),
        "step_memory: 4-bit + LoRA over align": (2.0, 4.0, 0.5),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # librosa imports modules that Python 3.13 drops
def test_every_way_of_decoding_decodes_everything() -> None:
    """At a size that shows nothing but that all of it runs; `rates` itself checks that no way leaves a clip out."""
    pytest.importorskip("datasets")
    decoding = load("decoding")
    found = decoding.rates(rounds=1, clips_each=2, passes=1)
    assert list(found) == list(decoding.WAYS)
    assert all(list(by_format) == [*decoding.FORMATS, decoding.ALL] and min(by_format.values()) > 0 for by_format in found.values())


def test_bench_tells_how_fast_clips_are_decoded_against_each_other_way(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding = load("decoding")
    rates = {"ours": 600.0, "one": 200.0, "other": 400.0}
    monkeypatch.setattr(decoding, "rates", lambda rounds: {way: {"FLAC": rate / 2, decoding.ALL: rate} for way, rate in rates.items()})
    found = {row["name"]: (row["ours"], row["reference"], row["ratio"]) for row in bench.bench_decoding(1)}
    assert found == {
        "decode FLAC: one": (300, 100, 3),
        "decode all: one": (600, 200, 3),
        "decode FLAC: other": (300, 200, 1.5),
        "decode all: other": (600, 400, 1.5),
    }


@pytest.mark.slow
def test_the_caching_benchmark_gives_the_same_loss_both_ways_and_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    caching = load("caching")
    found = caching.measure(1, copies=1)
    assert found["clips"] == 20
    assert found["cached_loss"] == pytest.approx(found["uncached_loss"], rel=5e-3)
    assert 0 < found["cached_s"] < found["uncached_s"]
    monkeypatch.setattr(caching, "measure", lambda rounds: found)
    assert len(caching.bench_caching(1)) == 5


def test_memory_knows_the_same_rows_in_each_way(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "bench", bench)
    memory = load("memory")
    manifest = memory.write_corpus(tmp_path / "corpus", 40)
    lines = [{"rows": 40, "how": how, **memory.know_rows(manifest, how)} for how in ("index", "again", "list")]
    assert all(line["peak_mb"] >= line["before_mb"] > 0 for line in lines)
    assert len(memory.draw(lines).splitlines()) == 4
    more = [{**line, "rows": 1040, "peak_mb": line["peak_mb"] + 0.2} for line in lines]
    assert memory.growth_bytes([*lines, *more], "index") == pytest.approx(200)


def test_detect_speed_measures_all_ways_and_generate_answers_as_the_log_odds_do() -> None:
    """At a size that shows nothing but that all of it runs."""
    speed = load("detect_speed")
    found = speed.measure("tiny", rounds=1, count=3)
    assert set(found["clips_per_s"]) == {speed.OURS, *found["times_as_fast"]} == {speed.OURS, speed.PADDED, speed.SINGLE, speed.TRIMMED}
    assert all(rate > 0 for rate in found["clips_per_s"].values())
    assert found["same_label"][speed.TRIMMED] == 1  # the same input


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_no_script_takes_the_name_of_a_package(script: Path) -> None:
    """A script's folder comes first in the path of each other one there: `coverage.py` broke the import of numba."""
    assert PathFinder.find_spec(script.stem, [path for path in sys.path if Path(path) != BENCHMARKS]) is None
