"""Stock audio language models: the same numbers as transformers' own classes, behind the interface of a graft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AudioFlamingo3Processor,
    AutoConfig,
    AutoTokenizer,
    GraniteSpeechForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from audiograft.inference.engine import Engine
from audiograft.messages import audio_messages
from audiograft.model.stock import StockAudioModel, StockProcessor, is_stock, load_stock
from audiograft.model.stock.mel import MelSpec, stacked_log_mel, window_log_mel
from audiograft.types import ConfigError, DataError

Opened = tuple[StockAudioModel, StockProcessor]
CLIPS = [builders.tone(seconds, hz, seed) for seed, (seconds, hz) in enumerate([(1.0, 300), (0.2, 900), (2.5, 500)])]
SAMPLES = [1600, 3200, 8000, 8001, 16_000, 47_999, 100_000, 479_900, 480_000]
TOLERANCE = {"atol": 2e-4, "rtol": 2e-4}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: builders.stock_checkpoint(tmp_path_factory.mktemp(kind), kind) for kind in builders.STOCK}


@pytest.fixture(scope="session")
def opened(folders: dict[str, Path]) -> dict[str, Opened]:
    """For tests that only read them."""
    return {kind: load_stock(kind, str(folder)) for kind, folder in folders.items()}


@pytest.fixture(params=builders.STOCK)
def stock(request: pytest.FixtureRequest, opened: dict[str, Opened]) -> Opened:
    return opened[request.param]


def stock_inputs(kind: str, folder: Path, prompts: list[str], clips: list[np.ndarray], ours: Any) -> dict[str, Any]:
    """What the stock processor makes of expanded prompts and clips; where there is none here, our ids and the stock extractor's features."""
    if kind == "granite_speech":
        # Its extractor needs torchaudio, whose values the test of the spectrogram holds.
        mel = stacked_log_mel(torch.from_numpy(clips[0])[None], MelSpec(512, 400, 80, "htk"))
        return {"input_ids": ours["input_ids"], "attention_mask": ours["attention_mask"], "input_features": mel}
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    if kind == "voxtral":
        # Its processor needs mistral-common; the features are those that it computes.
        mel = extractor(clips, sampling_rate=16_000, return_tensors="pt")["input_features"]
        return {"input_ids": ours["input_ids"], "attention_mask": ours["attention_mask"], "input_features": mel}
    classes: dict[str, Any] = {"qwen2_audio": Qwen2AudioProcessor, "audioflamingo3": AudioFlamingo3Processor}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    processor = classes[kind](feature_extractor=extractor, tokenizer=tokenizer)
    # AudioFlamingo3's pads text by itself, and would take the option for the audio too.
    padding = {} if kind == "audioflamingo3" else {"padding": True}
    return dict(processor(text=prompts, audio=clips, sampling_rate=16_000, return_tensors="pt", **padding))


@pytest.mark.parametrize("clips", [CLIPS[:1], CLIPS])
@pytest.mark.parametrize("kind", builders.STOCK)
def test_logits_are_those_of_the_stock_class(kind: str, clips: list[np.ndarray], opened: dict[str, Opened], folders: dict[str, Path]) -> None:
    if kind == "granite_speech":
        # In a batch, the stock encoder hears the pads of shorter clips; ours does not.
        clips = clips[:1]
    model, processor = opened[kind]
    prompts = [processor.build_prompt(audio_messages("Transcribe it."))] * len(clips)
    ours = processor(prompts, audio=clips)
    theirs = stock_inputs(kind, folders[kind], prompts, clips, ours)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    with torch.no_grad():
        expected = model.stock(**theirs).logits
        own = model(**ours).logits
    real = ours["attention_mask"].bool()
    torch.testing.assert_close(own[real], expected[real], **TOLERANCE)


@pytest.mark.parametrize("kind", builders.STOCK)
def test_generation_is_that_of_the_stock_class(kind: str, opened: dict[str, Opened], folders: dict[str, Path]) -> None:
    model, processor = opened[kind]
    prompts = [processor.build_prompt(audio_messages("Transcribe it."))]
    ours = processor(prompts, audio=CLIPS[:1])
    theirs = stock_inputs(kind, folders[kind], prompts, CLIPS[:1], ours)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": 419}
    assert torch.equal(model.generate(**ours, **options), model.stock.generate(**theirs, **options))


@pytest.mark.parametrize("kind", ["qwen2_audio", "audioflamingo3"])
def test_token_counts_are_those_of_the_stock_processor(kind: str, opened: dict[str, Opened], folders: dict[str, Path]) -> None:
    _, processor = opened[kind]
    prompt = processor.build_prompt(audio_messages("x"))
    for n_samples in SAMPLES:
        clip = np.full(n_samples, 0.1, dtype=np.float32)
        ids = stock_inputs(kind, folders[kind], [prompt], [clip], None)["input_ids"]
        tokens = processor.front_end.audio_tokens(processor.front_end.feature_frames(n_samples))
        assert tokens == int((ids == processor.audio_token_id).sum())


def test_token_counts_that_are_published(opened: dict[str, Opened]) -> None:
    def tokens(kind: str, n_samples: int) -> int:
        front_end = opened[kind][1].front_end
        return front_end.audio_tokens(front_end.feature_frames(n_samples))

    assert [tokens("qwen2_audio", n) for n in (3200, 16_000, 32_000, 480_000)] == [5, 25, 50, 750]
    assert [tokens("voxtral", n) for n in SAMPLES] == [375] * len(SAMPLES)
    # ceil(frames of 20 ms / 15) windows of three tokens each.
    assert [tokens("granite_speech", n) for n in (1600, 4800, 4960, 16_000, 480_000)] == [3, 3, 6, 12, 300]


def test_as_many_tokens_as_the_model_embeds(stock: Opened) -> None:
    model, processor = stock
    for n_samples in (1, 160, 320, 321, 1600, 4959, 4960, 16_001, 480_000):
        features = processor.features(np.full(n_samples, 0.1, dtype=np.float32))
        with torch.no_grad():
            embeds = model.family.audio_embeds(model.stock, torch.from_numpy(features), [features.shape[1]], processor.spec)
        tokens = processor.front_end.audio_tokens(features.shape[1])
        assert tokens == len(embeds.reshape(-1, embeds.shape[-1])) >= 1
        assert features.shape == (1, processor.front_end.feature_frames(n_samples))


def test_a_clip_too_short_for_a_token_is_followed_by_silence(opened: dict[str, Opened]) -> None:
    _, processor = opened["qwen2_audio"]
    assert processor.front_end.feature_frames(200) == 321
    assert np.flatnonzero(processor.features(np.ones(200, dtype=np.float32))).tolist() == list(range(200))
    with pytest.raises(ValueError, match="480001"):
        processor.front_end.feature_frames(480_001)


def test_the_spectrogram_is_that_of_the_stock_extractor() -> None:
    clips = [*CLIPS, builders.tone(30.0, 200)]
    spec = MelSpec.read(WhisperFeatureExtractor(feature_size=80).to_dict(), "slaney")
    stock = WhisperFeatureExtractor(feature_size=80)(clips, sampling_rate=16_000, return_tensors="pt")["input_features"]
    together = torch.zeros(len(clips), 480_000)
    for row, clip in zip(together, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    assert window_log_mel(together, spec).shape == (4, 80, 3000)
    torch.testing.assert_close(window_log_mel(together, spec), stock, atol=1e-5, rtol=0)
    short = window_log_mel(torch.from_numpy(CLIPS[0])[None], spec)
    torch.testing.assert_close(short, stock[:1], atol=1e-5, rtol=0)


def test_the_spectrogram_of_granite_speech_is_torchaudios() -> None:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    mel = stacked_log_mel(torch.from_numpy(wave.astype(np.float32))[None], MelSpec(512, 400, 80, "htk"))[0]
    assert mel.shape == (50, 160)
    # torchaudio 2.11's MelSpectrogram and the stock extractor's scaling, frames 10 and 50.
    expected = [-0.0674456, 0.0011233, 0.0705443, 0.1073126, -0.0413740, -0.0508728]
    torch.testing.assert_close(mel[5, :6], torch.tensor(expected), atol=2e-5, rtol=0)
    torch.testing.assert_close(mel[25, [0, 20, 40, 79]], torch.tensor([-0.0674456, 0.4615327, -0.2774042, -0.2774042]), atol=2e-5, rtol=0)


def labelled(processor: StockProcessor, clips: list[np.ndarray], responses: list[str], side: str = "right") -> dict[str, Any]:
    """A padded training batch."""
    features = [processor.features(clip) for clip in clips]
    rows = [
        processor.training_inputs(audio_messages("Transcribe it."), response, [feature.shape[1]])
        for response, feature in zip(responses, features, strict=True)
    ]
    return processor.collate(rows, features, padding_side=side)


RESPONSES = ["one two", "three", "four five six seven"]


def test_the_loss_is_that_of_the_stock_class(stock: Opened) -> None:
    model, processor = stock
    batch = labelled(processor, CLIPS[:1], RESPONSES[:1])
    labels = batch["labels"]
    with torch.no_grad():
        whole = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        own = model(**batch)
        embeds = model._embed(batch["input_ids"], batch["input_features"], batch["feature_lengths"])
        expected = model.stock(inputs_embeds=embeds, attention_mask=batch["attention_mask"], labels=labels).loss
        shared = model(**batch, num_items_in_batch=10)
    count = int((labels != -100).sum())
    torch.testing.assert_close(own.loss, expected)
    torch.testing.assert_close(shared.loss * 10, own.loss * count)
    torch.testing.assert_close(own.logits, whole[:, :-1][labels[:, 1:] != -100], **TOLERANCE)
    assert own.logits.shape == (count, builders.VOCABULARY_ROWS)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_gives_what_its_rows_give(stock: Opened, side: str) -> None:
    model, processor = stock
    with torch.no_grad():
        together = model(**labelled(processor, CLIPS, RESPONSES, side)).logits
        single = [model(**labelled(processor, [clip], [response])).logits for clip, response in zip(CLIPS, RESPONSES, strict=True)]
    torch.testing.assert_close(together, torch.cat(single), **TOLERANCE)


def test_it_listens(stock: Opened) -> None:
    model, processor = stock
    batch = labelled(processor, CLIPS, RESPONSES)
    same_length = [builders.tone(len(clip) / 16_000, 77.0 * number) for number, clip in enumerate(CLIPS, start=1)]
    shuffled = batch | processor.pad_features([processor.features(clip) for clip in same_length])
    with torch.no_grad():
        assert (model(**batch).logits - model(**shuffled).logits).abs().max() > 1e-2


def test_gradients_reach_every_component(folders: dict[str, Path]) -> None:
    for kind, folder in folders.items():
        model, processor = load_stock(kind, str(folder))
        model.requires_grad_(True)
        model.language_model.activation_checkpointing_enable({"use_reentrant": False})
        model(**labelled(processor, CLIPS, RESPONSES)).loss.backward()
        for part in (model.audio_tower, model.projector, model.language_model):
            assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0, kind
        assert all(name.startswith("stock.model.") or name == "stock.lm_head.weight" for name, _ in model.named_parameters())


@pytest.mark.parametrize("n_clips", [0, 2])
def test_too_few_or_too_many_clips_are_an_error_with_both_counts(stock: Opened, n_clips: int) -> None:
    model, processor = stock
    prompt = processor.build_prompt(audio_messages("x"))
    with pytest.raises(ValueError, match=f"1 audio placeholders in the text but {n_clips} clips"):
        processor([prompt], audio=CLIPS[:n_clips])
    batch = processor([prompt], audio=CLIPS[:1])
    with pytest.raises(ValueError, match=r"audio placeholders in the prompt but 0 audio embeddings"):
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    two = processor.pad_features([processor.features(clip) for clip in CLIPS[:2]])
    with pytest.raises(ValueError, match=r"audio placeholders in the prompt but \d+ audio embeddings"):
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **two)


def test_prompts_are_in_the_format_of_each_family(opened: dict[str, Opened]) -> None:
    def prompt(kind: str, text: str, n_clips: int) -> str:
        return opened[kind][1].build_prompt(audio_messages(text, n_clips))

    system = "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\n"
    answer = "<|im_end|>\n<|im_start|>assistant\n"
    clips = [f"Audio {n}: <|audio_bos|><|AUDIO|><|audio_eos|>\n" for n in (1, 2)]
    assert prompt("qwen2_audio", "Same?", 2) == system + "".join(clips) + "Same?" + answer
    assert prompt("qwen2_audio", "First <audio> then <audio> same?", 2) == system + f"First {clips[0]} then {clips[1]} same?" + answer
    assert prompt("qwen2_audio", "Hi", 0) == system + "Hi" + answer
    assert prompt("voxtral", "Same?", 2) == "<s>[INST][BEGIN_AUDIO][AUDIO][BEGIN_AUDIO][AUDIO]Same?[/INST]"
    assert prompt("audioflamingo3", "Hm?", 1) == system + "<sound>Hm?" + answer
    assert prompt("granite_speech", "Hm?", 1) == system + "<|audio|>Hm?" + answer


def test_prompts_of_qwen2_audio_are_those_of_its_own_processor(opened: dict[str, Opened], folders: dict[str, Path]) -> None:
    _, processor = opened["qwen2_audio"]
    stock = Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=80), AutoTokenizer.from_pretrained(folders["qwen2_audio"]))
    processor.tokenizer.chat_template, own = processor.family.chat_template, processor.tokenizer.chat_template
    conversation = [
        {"role": "user", "content": [{"type": "audio"}, {"type": "audio"}, {"type": "text", "text": "Same?"}]},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": [{"type": "audio"}]},
    ]
    classify = [{"role": "system", "content": "You classify."}, {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "A or B?"}]}]
    try:
        for messages in (conversation, classify):
            theirs = stock.apply_chat_template(messages, chat_template=stock.default_chat_template, tokenize=False, add_generation_prompt=True)
            assert processor.build_prompt(messages) == theirs
    finally:
        processor.tokenizer.chat_template = own


def test_a_system_turn_and_a_left_padded_batch(opened: dict[str, Opened]) -> None:
    model, processor = opened["qwen2_audio"]
    questions = ["Choose one: A) SPEECH B) NONSPEECH", "A or B?", "Answer with A or B ONLY."]
    prompts = [
        processor.build_prompt([{"role": "system", "content": "You classify audio content."}, *audio_messages(question)]) for question in questions
    ]
    assert prompts[0].startswith("<|im_start|>system\nYou classify audio content.<|im_end|>\n<|im_start|>user\nAudio 1: ")
    options = {"max_new_tokens": 8, "do_sample": False}
    batch = processor(prompts, audio=CLIPS)
    assert int(batch["attention_mask"][1, 0]) == 0
    together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    for row, prompt, clip in zip(together, prompts, CLIPS, strict=True):
        alone = processor([prompt], audio=[clip])
        single = model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
        assert row[: len(single)].tolist() == single.tolist()


def test_a_system_turn_that_a_model_does_not_take_is_one_line(opened: dict[str, Opened]) -> None:
    with pytest.raises(DataError, match="Voxtral takes no system turn") as error:
        opened["voxtral"][1].build_prompt([{"role": "system", "content": "x"}, *audio_messages("y")])
    assert "\n" not in str(error.value)


def test_no_chat_template_can_drop_a_clip(opened: dict[str, Opened]) -> None:
    _, processor = opened["qwen2_audio"]
    own = processor.tokenizer.chat_template
    processor.tokenizer.chat_template = "{% for m in messages %}{{ m['content'].split('Audio 2')[0] }}{% endfor %}"
    try:
        with pytest.raises(DataError, match="kept 1 of 2 clips"):
            processor.build_prompt(audio_messages("x", 2))
    finally:
        processor.tokenizer.chat_template = own


def test_beams_hear_the_clips_of_their_own_prompt(stock: Opened) -> None:
    model, processor = stock
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    prompt = processor.build_prompt(audio_messages("Same?", 2))
    pairs = [CLIPS[:2], CLIPS[1:]]
    batch = processor([prompt, prompt], audio=[clip for pair in pairs for clip in pair])
    together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    for row, pair in zip(together, pairs, strict=True):
        alone = processor([prompt], audio=pair)
        single = model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
        assert row[: len(single)].tolist() == single.tolist()


def test_the_engine_runs_each_of_them(stock: Opened) -> None:
    model, processor = stock
    model.language_model.generation_config.suppress_tokens = [*range(40), *range(300, builders.VOCABULARY_ROWS)]
    engine = Engine(model, processor, "stock")  # type: ignore[arg-type]
    clips = [(clip, 16_000) for clip in CLIPS]
    together = engine.transcribe(clips, batch_size=3, max_new_tokens=12)
    single = [engine.transcribe(clip, max_new_tokens=12) for clip in clips]
    model.language_model.generation_config.suppress_tokens = None
    assert [transcript.text for transcript in together] == [transcript.text for transcript in single]
    assert len({transcript.text for transcript in together}) == 3


def test_the_adapter_of_granite_speech_works_on_audio_alone(opened: dict[str, Opened], folders: dict[str, Path]) -> None:
    model, processor = opened["granite_speech"]
    assert model.has_own_adapter
    trained = [parameter.requires_grad for parameter in model.parameters()]
    text = processor([processor.build_prompt(audio_messages("Hi", 0))])
    heard = processor([processor.build_prompt(audio_messages("Hi", 1))], audio=CLIPS[:1])
    bare_folder = folders["granite_speech"]
    bare = GraniteSpeechForConditionalGeneration.from_pretrained(bare_folder, adapter_kwargs={"subfolder": "none"}).eval()
    with torch.no_grad():
        assert torch.equal(model(**text).logits, bare(**text).logits)
        embeds = model._embed(heard["input_ids"], heard["input_features"], heard["feature_lengths"])
        assert (model(**heard).logits - bare(inputs_embeds=embeds, attention_mask=heard["attention_mask"]).logits).abs().max() > 1e-3
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    (bare_folder / "adapter_model.safetensors").rename(bare_folder / "away")
    try:
        with pytest.raises(ConfigError, match="adapter of g"):
            load_stock("g", str(bare_folder))
    finally:
        (bare_folder / "away").rename(bare_folder / "adapter_model.safetensors")


@pytest.mark.parametrize("kind", builders.STOCK)
def test_what_is_saved_opens_again(kind: str, opened: dict[str, Opened], tmp_path: Path) -> None:
    model, processor = opened[kind]
    if kind == "granite_speech":
        with pytest.raises(Exception, match="can't be saved whole"):
            model.save_pretrained(tmp_path)
        return
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, other = load_stock("again", str(tmp_path))
    prompt = processor.build_prompt(audio_messages("Hm?"))
    assert other.build_prompt(audio_messages("Hm?")) == prompt
    batch, copy = processor([prompt], audio=CLIPS[:1]), other([prompt], audio=CLIPS[:1])
    assert torch.equal(batch["input_ids"], copy["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, again(**copy).logits)


def change_weights(folder: Path, drop: str | None = None, add: str | None = None) -> None:
    weights = load_file(folder / "model.safetensors")
    if drop is not None:
        del weights[next(name for name in weights if drop in name)]
    if add is not None:
        weights[add] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "drop"),
    [
        ("qwen2_audio", "multi_modal_projector"),
        ("voxtral", "audio_tower.conv1"),
        ("audioflamingo3", "lm_head"),
        ("granite_speech", "q_proj"),
    ],
)
def test_a_missing_or_extra_tensor_is_refused(tmp_path: Path, kind: str, drop: str) -> None:
    builders.stock_checkpoint(tmp_path, kind)
    change_weights(tmp_path, add="audio_tower.more")
    with pytest.raises(ConfigError, match="broken has an extra tensor"):
        load_stock("broken", str(tmp_path))
    change_weights(tmp_path, drop=drop)
    with pytest.raises(ConfigError, match="broken lacks tensor") as error:
        load_stock("broken", str(tmp_path))
    assert "\n" not in str(error.value)


def test_damaged_folders_are_one_line(tmp_path: Path, folders: dict[str, Path]) -> None:
    builders.stock_checkpoint(tmp_path, "voxtral")
    for name, match in (("preprocessor_config.json", "can't load the processor of v"), ("tekken.json", "can't load the processor of v")):
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(ConfigError, match=match) as error:
            load_stock("v", str(tmp_path))
        assert "\n" not in str(error.value)
        (tmp_path / "away").rename(tmp_path / name)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | {"hop_length": 320}))
    with pytest.raises(ConfigError, match="hop_length is 320"):
        load_stock("v", str(tmp_path))
    config = json.loads((folders["voxtral"] / "config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps(config | {"audio_token_id": 30}))
    with pytest.raises(ConfigError, match=r"\[AUDIO\] is token 30, but the tokenizer has it at 24"):
        load_stock("v", str(tmp_path))


def test_other_models_are_not_stock(tmp_path: Path) -> None:
    builders.lm_checkpoint(tmp_path)
    assert not is_stock(AutoConfig.from_pretrained(tmp_path))
    assert is_stock(builders.stock_config("voxtral"))
    with pytest.raises(ConfigError, match="lm is a qwen2 model"):
        load_stock("lm", str(tmp_path))
