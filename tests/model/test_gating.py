"""`lora_gate: audio`: rows without audio are the base's, bit for bit, whatever stands beside them in the batch."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

from audiograft.cli import main
from audiograft.inference.engine import Engine
from audiograft.inference.prefill import Prefill
from audiograft.model import audio_messages, load_model
from audiograft.model.adapters import ADAPTER_FILE, read_adapter, save_adapter
from audiograft.model.checkpoint import save_graft
from audiograft.model.gating import for_checkpoint, gate_lora, gate_of, gate_open
from audiograft.model.inspect import inspect_model
from audiograft.model.lora import LoraSettings, can_merge, inject_lora, lora_disabled, lora_modules, lora_parameters, merge_lora
from audiograft.model.merge import merge_adapter
from audiograft.model.quantise import decoder_linears, finish_nf4, quantise_in_place
from audiograft.train.stages import checkpointed_layers
from audiograft.types import AudiograftError, ConfigError

KINDS = ("qwen2", "qwen2_vl")
SEEN = (0, 2)
"""Rows of `batch` without audio."""
HEARD = (1, 3)
BOTH = torch.tensor(SEEN)


def base(kind: str = "qwen2", dtype: torch.dtype = torch.float32, quantised: bool = False) -> tuple[Any, Any]:
    """A graft whose projector learns, without any LoRA."""
    model, processor = builders.graft(kind)
    model.to(dtype).requires_grad_(False)
    if quantised:
        quantise_in_place(model, torch.float32, "cpu")
        finish_nf4(model)
    model.projector.float().requires_grad_(True)
    return model, processor


def adapted(kind: str = "qwen2", dtype: torch.dtype = torch.float32, quantised: bool = False, gated: bool = True, **settings: Any) -> tuple[Any, Any]:
    """The same with LoRA that changes much, in fp32, and gated."""
    model, processor = base(kind, dtype, quantised)
    inject_lora(model, list(decoder_linears(model)), LoraSettings(**{"rank": 4, "alpha": 16.0, **settings}))
    torch.manual_seed(5)
    for parameter in lora_parameters(model):
        parameter.data = parameter.data.float().normal_(std=0.3)
    model.projector.requires_grad_(True)
    if gated:
        gate_lora(model)
    return model, processor


def batch(kind: str, processor: Any, rows: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, Tensor]:
    """Text, audio, text or a picture, audio; padded on the left, as for `generate`."""
    texts = [
        processor.build_prompt(audio_messages("one two three", 0)),
        processor.build_prompt(audio_messages("hear this", 1)),
        processor.build_prompt(audio_messages("four", 0)),
        processor.build_prompt(audio_messages("and this too", 1)),
    ]
    clips = {1: builders.tone(0.5), 3: builders.tone(0.3, 700.0)}
    encoded = processor([texts[row] for row in rows], audio=[clips[row] for row in rows if row in clips] or None)
    inputs = dict(encoded)
    if kind == "qwen2_vl" and 2 in rows:
        # A picture of one token in front of the second text.
        image = torch.tensor([418, 416, 419])
        at = rows.index(2)
        wide = {name: nn.functional.pad(inputs[name], (3, 0)) for name in ("input_ids", "attention_mask")}
        own = inputs["attention_mask"][at].bool()
        ids = torch.cat([image, inputs["input_ids"][at][own]])
        wide["input_ids"][at, -len(ids) :], wide["attention_mask"][at, -len(ids) :] = ids, 1
        torch.manual_seed(3)
        inputs |= wide | {"pixel_values": torch.randn(4, 3 * 2 * 14 * 14), "image_grid_thw": torch.tensor([[1, 2, 2]])}
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == 416).long()
    return inputs


def labelled(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch whose last three positions of each row carry loss."""
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    return {**inputs, "labels": labels}


def per_row(logits: Tensor) -> Tensor:
    """(labelled positions, vocabulary) of `labelled` -> (rows, 3, vocabulary)."""
    return logits.unflatten(0, (-1, 3))


def assert_gated(found: Tensor, plain: Tensor, seen: tuple[int, ...] = SEEN, heard: tuple[int, ...] = HEARD) -> None:
    assert all(torch.equal(found[row], plain[row]) for row in seen)
    assert all(not torch.allclose(found[row].float(), plain[row].float(), atol=1e-3) for row in heard)


MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "rslora": {"rslora": True},
    "dropout": {"dropout": 0.4},
    "bf16": {"dtype": torch.bfloat16},
    "nf4": {"quantised": True},
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_audio_are_the_base_s_beside_rows_with(kind: str, mode: str, training: bool) -> None:
    model, processor = adapted(kind, **MODES[mode])
    plain = base(kind, **{key: value for key, value in MODES[mode].items() if key in ("dtype", "quantised")})[0].train(training)
    model.train(training)
    inputs = batch(kind, processor)
    assert_gated(model(**inputs).logits, plain(**inputs).logits)
    assert_gated(per_row(model(**labelled(inputs)).logits), per_row(plain(**labelled(inputs)).logits))


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype: torch.dtype) -> None:
    model, processor = adapted()
    inputs = labelled(batch("qwen2", processor))
    with torch.autocast("cpu", dtype):
        assert_gated(per_row(model.train()(**inputs).logits), per_row(base()[0].train()(**inputs).logits))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_one_kind(kind: str) -> None:
    model, processor = adapted(kind)
    always, plain = adapted(kind, gated=False)[0], base(kind)[0]
    with torch.no_grad():
        for rows in ((1,), (1, 3)):
            inputs = batch(kind, processor, rows)
            assert torch.equal(model(**inputs).logits, always(**inputs).logits)
        for rows in ((0,), (2,), (0, 2)):
            inputs = batch(kind, processor, rows)
            found = model(**inputs).logits
            assert torch.equal(found, plain(**inputs).logits)
            assert not torch.allclose(found, always(**inputs).logits, atol=1e-3)


GENERATION: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 3, "temperature": 2.0},
    "static cache": {"cache_implementation": "static"},
}


@pytest.mark.parametrize("how", GENERATION)
@pytest.mark.parametrize("kind", KINDS)
def test_generated_ids_and_logits_are_the_base_s(kind: str, how: str) -> None:
    model, processor = adapted(kind)
    inputs, options = batch(kind, processor), {"max_new_tokens": 6, "min_new_tokens": 6, **GENERATION[how]}

    def generate(listener: Any) -> tuple[Tensor, Tensor]:
        """Ids (rows, sequences, positions) and first logits (rows, beams, vocabulary)."""
        torch.manual_seed(11)
        output = listener.eval().generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
        return output.sequences.unflatten(0, (4, -1)), output.logits[0].unflatten(0, (4, -1))

    (ids, logits), (plain_ids, plain_logits) = generate(model), generate(base(kind)[0])
    assert all(torch.equal(ids[row], plain_ids[row]) for row in SEEN)
    assert any(not torch.equal(ids[row], plain_ids[row]) for row in HEARD)
    assert_gated(logits, plain_logits)


def gradients(model: Any) -> list[Tensor]:
    """Of LoRA; all are there."""
    found = [parameter.grad for parameter in lora_parameters(model)]
    assert all(gradient is not None for gradient in found)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_audio_give_lora_no_gradient(kind: str) -> None:
    model, processor = adapted(kind)
    inputs = labelled(batch(kind, processor))
    model.train()(**inputs, num_items_in_batch=6).loss.backward()
    mixed = copy.deepcopy(gradients(model))
    muted = {**inputs, "labels": inputs["labels"].clone()}
    muted["labels"][BOTH] = -100
    model.zero_grad()
    model(**muted, num_items_in_batch=6).loss.backward()
    assert any(gradient.abs().max() > 1e-3 for gradient in mixed)
    for own, other in zip(mixed, gradients(model), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_a_batch_without_audio_gives_gradients_of_zero() -> None:
    """As the other processes of DDP wait for, to the projector too."""
    model, processor = adapted()
    model.train()(**labelled(batch("qwen2", processor, SEEN))).loss.backward()
    assert all(not gradient.any() for gradient in gradients(model))
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.projector.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpointed_layers_compute_again_for_their_own_rows(kind: str, dropout: float) -> None:
    """Two batches are under way before either goes backward, and something else runs in between."""
    model, processor = adapted(kind, dropout=dropout)
    first, second = labelled(batch(kind, processor)), labelled(batch(kind, processor, (1, 0, 3, 2)))

    def found(between: bool) -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(2)
        losses = [model(**first).loss, model(**second).loss]
        if between:
            with torch.no_grad():
                model(**batch(kind, processor, (0,)))
        sum(losses).backward()
        return copy.deepcopy(gradients(model))

    model.train()
    plain = found(False)
    model.language_model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": for_checkpoint})
    for layer in checkpointed_layers(model):
        layer.training = True
    for own, other in zip(plain, found(True), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7)


def test_a_base_s_minus_zero_stays_one() -> None:
    model, processor = adapted()
    layer = lora_modules(model)["language_model.model.layers.0.mlp.down_proj"]
    zeros: list[Tensor] = []
    handles = [
        layer.get_base_layer().register_forward_hook(lambda module, args, output: torch.full_like(output, -0.0)),
        layer.register_forward_hook(lambda module, args, output: zeros.append(output)),
    ]
    with torch.no_grad():
        model(**batch("qwen2", processor))
    for handle in handles:
        handle.remove()
    assert zeros[0][BOTH].signbit().all()
    assert zeros[0][torch.tensor(HEARD)].any()


def test_decoding_step_by_step_keeps_the_gate() -> None:
    """Later tokens are no audio; whether their prompt had any is known of the cache."""
    model, processor = adapted()
    model.eval()
    inputs = batch("qwen2", processor)
    new = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4)
    mask = inputs["attention_mask"]
    for cache in (None, StaticCache(model.config.text_config, max_cache_len=64)):
        places = (mask.cumsum(1) - 1).clamp(min=0)
        output = model(**inputs, position_ids=places, use_cache=True, past_key_values=cache)
        width, written = inputs["input_ids"].shape[1], []
        for step in range(4):
            written.append(output.logits[:, -1].argmax(-1))
            whole = nn.functional.pad(mask, (0, step + 1), value=1)
            places = (whole.cumsum(1) - 1)[:, -1:]
            output = model(written[-1][:, None], attention_mask=whole, position_ids=places, past_key_values=output.past_key_values)
        assert torch.equal(torch.stack(written, 1), new[:, width:])


def test_audio_behind_a_cache_of_text_is_refused_and_an_empty_cache_forgets() -> None:
    model, processor = adapted()
    model.eval()
    text, heard = batch("qwen2", processor, (0,)), batch("qwen2", processor, (1,))
    with torch.no_grad():
        cache = model(**text, use_cache=True).past_key_values
        longer = {**heard, "attention_mask": nn.functional.pad(heard["attention_mask"], (text["input_ids"].shape[1], 0), value=1)}
        with pytest.raises(ValueError, match="audio behind a cache that was computed without LoRA"):
            model(**longer, past_key_values=cache)
        static = StaticCache(model.config.text_config, max_cache_len=64)
        model(**text, past_key_values=static)
        static.reset()
        assert torch.equal(
            model(**heard, past_key_values=static).logits, model(**heard, past_key_values=StaticCache(model.config.text_config, 64)).logits
        )


def test_a_cache_that_generation_filled_knows_its_rows() -> None:
    model, processor = adapted()
    always, _ = adapted(gated=False)
    text, heard = batch("qwen2", processor, (0,)), batch("qwen2", processor, (1,))
    caches = []
    for answering, inputs in ((model, heard), (always, heard), (model, text)):
        caches.append(DynamicCache())
        ids = answering.eval().generate(**inputs, max_new_tokens=3, min_new_tokens=3, past_key_values=caches[-1])
    with torch.no_grad():
        of_gated, of_always, of_text = caches
        last = ids[:, -1:]
        assert torch.equal(model(last, past_key_values=of_gated).logits, always(last, past_key_values=of_always).logits)
        with pytest.raises(ValueError, match="audio behind a cache that was computed without LoRA"):
            model(**heard | {"attention_mask": None}, past_key_values=of_text)


def test_the_language_model_by_itself_can_not_tell() -> None:
    model, processor = adapted()
    ids = batch("qwen2", processor, (0,))["input_ids"]
    with pytest.raises(AudiograftError, match="was called by itself"):
        model.language_model(ids)
    with lora_disabled(model):
        model.language_model(ids)
    # An error in between leaves the gate as it was.
    with pytest.raises(ValueError, match="0 audio embeddings"):
        model(torch.tensor([[processor.audio_token_id]]))
    with pytest.raises(AudiograftError, match="was called by itself"):
        model.language_model(ids)


class Flattened(nn.Module):
    """A layer that a mixture of experts would call: with positions, not rows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@pytest.mark.parametrize("rows", [(0, 1), (1,)])
def test_layers_that_see_no_rows_are_refused(rows: tuple[int, ...]) -> None:
    model, processor = adapted()
    layer = model.language_model.model.layers[0].mlp
    layer.up_proj = Flattened(layer.up_proj)
    with pytest.raises(AudiograftError, match="mixture of experts: use always"):
        model(**batch("qwen2", processor, rows))


def test_a_copy_has_a_gate_of_its_own() -> None:
    """As sharding makes one."""
    model, processor = adapted()
    twin = copy.deepcopy(model)
    inputs = batch("qwen2", processor)
    with torch.no_grad():
        assert torch.equal(twin(**inputs).logits, model(**inputs).logits)


def test_held_open_it_is_what_merging_makes_of_it() -> None:
    model, processor = adapted()
    inputs = batch("qwen2", processor)
    always = adapted(gated=False)[0]
    with torch.no_grad():
        with gate_open():
            open_logits = model(**inputs).logits
        assert torch.equal(open_logits, always(**inputs).logits)
        gated = model(**inputs).logits
        assert not torch.allclose(gated[0], open_logits[0], atol=1e-3)
        assert not can_merge(model)
        merge_lora(model)
        assert gate_of(model) == "always"
        assert not any(module._forward_hooks for module in model.modules())
        torch.testing.assert_close(model(**inputs).logits, open_logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2_audio", "voxtral"])
def test_stock_models(family: str, tmp_path: Path) -> None:
    from audiograft.model.stock import StockProcessor

    folder = builders.stock_checkpoint(tmp_path, family)
    model, processor = load_model(folder)
    assert isinstance(processor, StockProcessor)
    inject_lora(model, list(decoder_linears(model)), LoraSettings(4, 16.0))
    torch.manual_seed(5)
    for parameter in lora_parameters(model):
        parameter.data.normal_(std=0.3)
    gate_lora(model)
    texts = [processor.build_prompt(audio_messages("one", 0)), processor.build_prompt(audio_messages("hear", 1))]
    inputs = processor(texts, audio=[builders.tone(0.5)])
    for training in (False, True):
        model.train(training)
        torch.manual_seed(1)
        found = model(**inputs).logits
        with lora_disabled(model):
            torch.manual_seed(1)
            assert_gated(found, model(**inputs).logits, (0,), (1,))
    model.eval()
    found = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, num_beams=2)
    with lora_disabled(model):
        plain = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, num_beams=2)
    assert torch.equal(found[0], plain[0])
    assert not torch.equal(found[1], plain[1])


SHAPES = ((1, 3), (0, 1), (1, 0, 3), (0, 2, 1, 3), (3, 1, 0, 2, 1), (1, 3, 1), (2, 1, 0), (3, 3, 0, 1, 2, 0), (0, 0, 2), (3, 1, 3, 1))
"""Rows, lengths, and which rows have audio differ from batch to batch."""


def compilations(gated: bool, batches: tuple[tuple[int, ...], ...]) -> list[int]:
    """How many graphs of decoder layers there are after each batch; logits are those of layers that are not compiled."""
    graphs: list[int] = []

    def backend(graph: Any, example: Any) -> Any:
        graphs.append(1)
        return graph.forward

    model, processor = adapted(gated=gated)
    plain = adapted(gated=gated)[0].train()
    torch.compiler.reset()
    for layer in checkpointed_layers(model.train()):
        layer.compile(backend=backend)
    counts = []
    for rows in batches:
        inputs = labelled(batch("qwen2", processor, rows))
        torch.testing.assert_close(model(**inputs).logits, plain(**inputs).logits, rtol=1e-4, atol=1e-5)
        counts.append(len(graphs))
    torch.compiler.reset()
    return counts


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler has some of its own
def test_a_compiled_decoder_is_compiled_a_few_times_and_no_more() -> None:
    heard = tuple(tuple(row | 1 for row in rows) for rows in SHAPES)
    assert compilations(True, heard) == compilations(False, heard)
    without, mixed = compilations(False, SHAPES)[-1], compilations(True, SHAPES * 2)
    assert mixed[-1] == mixed[len(SHAPES) - 1]
    assert mixed[-1] <= 2 * without + 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_and_checkpointed_layers_give_the_same_gradients() -> None:
    found = []
    for compiled in (False, True):
        model, processor = adapted()
        torch.compiler.reset()
        model.language_model.activation_checkpointing_enable({"use_reentrant": False} | ({} if compiled else {"context_fn": for_checkpoint}))
        for layer in checkpointed_layers(model.train()):
            if compiled:
                layer.compile(backend="aot_eager")
        losses = [model(**labelled(batch("qwen2", processor, rows))).loss for rows in ((0, 1), (3, 2), (1, 3))]
        sum(losses).backward()
        found.append(gradients(model))
    torch.compiler.reset()
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_threads_do_not_see_each_other_s_rows() -> None:
    """As engines in the threads of one process."""
    models = [adapted()[0].eval() for _ in range(2)]
    processor = adapted()[1]
    inputs = [batch("qwen2", processor, rows) for rows in ((0, 1), (1, 0))]
    plain = [model.generate(**own, max_new_tokens=8, min_new_tokens=8) for model, own in zip(models, inputs, strict=True)]

    def work(number: int) -> list[Tensor]:
        return [models[number].generate(**inputs[number], max_new_tokens=8, min_new_tokens=8) for _ in range(5)]

    with ThreadPoolExecutor(2) as pool:
        for number, found in enumerate(pool.map(work, range(2))):
            assert all(torch.equal(ids, plain[number]) for ids in found)


def saved(folder: Path, kind: str = "qwen2") -> tuple[Path, Any, Any]:
    """A gated adapter on a whole graft, and the model as it was saved."""
    save_graft(*builders.graft(kind), folder / "base")
    model, processor = load_model(folder / "base")
    inject_lora(model, list(decoder_linears(model)), LoraSettings(4, 16.0))
    torch.manual_seed(5)
    for parameter in lora_parameters(model):
        parameter.data.normal_(std=0.1)
    gate_lora(model)
    save_adapter(model, processor, folder / "adapter", {"model": str(folder / "base")}, {"stage": "finetune"}, {})
    return folder / "adapter", model, processor


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_keeps_its_gate(tmp_path: Path, kind: str) -> None:
    folder, model, processor = saved(tmp_path, kind)
    assert json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))["lora_gate"] == "audio"
    again, _ = load_model(folder)
    inputs = batch(kind, processor)
    with torch.no_grad():
        found = again(**inputs).logits
        assert torch.equal(found, model(**inputs).logits)
        assert_gated(found, load_model(tmp_path / "base")[0](**inputs).logits)
    engine = Engine.load(str(folder), device="cpu")
    assert lora_modules(engine.model)
    assert gate_of(engine.model) == "audio"
    found_facts = inspect_model(folder)
    assert found_facts.adapter["lora_gate"] == "audio"
    assert not found_facts.problems


def test_adapters_that_do_not_say_act_on_all_rows(tmp_path: Path) -> None:
    folder, *_ = saved(tmp_path)
    path = folder / ADAPTER_FILE
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["lora_gate"]
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert read_adapter(folder).lora_gate == "always"
    assert gate_of(load_model(folder)[0]) == "always"
    path.write_text(json.dumps(fields | {"lora_gate": "sometimes"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"lora_gate is 'sometimes', not one of audio, always"):
        load_model(folder)


def test_an_adapter_on_a_gated_one_is_refused(tmp_path: Path) -> None:
    folder, model, processor = saved(tmp_path)
    model.projector.requires_grad_(True)
    save_adapter(model, processor, tmp_path / "upper", {"model": str(folder)}, {}, {})
    with pytest.raises(ConfigError, match="stands on .*adapter, whose LoRA has a gate that merging gives up"):
        load_model(tmp_path / "upper")


def test_merging_gives_the_gate_up_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, model, processor = saved(tmp_path)
    report = merge_adapter(folder, tmp_path / "merged")
    assert report.passed
    assert report.gate_given_up
    assert json.loads((tmp_path / "merged" / "merge.json").read_text(encoding="utf-8"))["gate_given_up"] is True
    merged, _ = load_model(tmp_path / "merged")
    inputs = batch("qwen2", processor)
    with torch.no_grad():
        with gate_open():
            torch.testing.assert_close(merged(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(merged(**inputs).logits[0], model(**inputs).logits[0], atol=1e-3)
    capsys.readouterr()
    assert main(["merge", str(folder), "--out", str(tmp_path / "again")]) == 0
    told = "merging gives lora_gate: audio up: LoRA acts on rows without audio too from now on"
    assert capsys.readouterr().err.splitlines().count(told) == 1


def test_a_prompt_that_is_run_once_for_many_clips(tmp_path: Path) -> None:
    """What stands in front of the clip belongs to rows with audio."""
    folder, _, _ = saved(tmp_path)
    model, processor = load_model(folder)
    messages = audio_messages("one two three four five six seven eight, which of them is it? <audio>", 1)
    prefill = Prefill(model, processor, messages)
    waveforms = [builders.tone(length, 300.0 + 100 * number) for number, length in enumerate((0.3, 0.5, 0.8, 0.4))]
    tokens = list(range(300))
    together = prefill.last_logits(waveforms, tokens, 4)
    assert prefill._before is not None
    alone = [Prefill(model, processor, messages).last_logits([waveform], tokens, 1)[0] for waveform in waveforms]
    text = processor.build_prompt(messages)
    plain = [model(**processor([text], audio=[waveform])).logits[0, -1, :300].double() for waveform in waveforms]
    for row in range(4):
        torch.testing.assert_close(torch.tensor(together[row]), torch.tensor(alone[row]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.tensor(together[row]), plain[row].detach(), rtol=1e-4, atol=1e-5)
