"""A vision-language model keeps its eyes: grafted, it sees what it saw before, bit for bit, and hears beside that, in any order and in any batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from transformers.utils import is_torchvision_available

from audiograft.images import Video
from audiograft.messages import media_messages, place_media
from audiograft.model import AudioGraftProcessor, graft, load_graft, vision
from audiograft.model.positions import embeddings_give
from audiograft.model.vision import check_takes_videos, refusal
from audiograft.types import ConfigError, DataError, ImageError

BRIGHT, DARK, WIDE = builders.picture(200), builders.picture(40, 28, 84), builders.picture(120, 112, 28)
LOW, HIGH = builders.tone(0.5), builders.tone(0.9, 1000)
GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights so large that what is seen and heard decides what is written."""
    return builders.vlm_graft(tmp_path_factory.mktemp("vision"), initializer_range=0.4)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    model, processor = load_graft(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("projector", "language_model.model.visual")) and parameter.dim() > 1:
                parameter.mul_(4)
    model.language_model.generation_config.eos_token_id = None
    return model, processor


@pytest.fixture(scope="module")
def stock(folder: Path, loaded: Any) -> Any:
    """The same model before grafting, with its own processor."""
    bare = Qwen2VLForConditionalGeneration.from_pretrained(folder.parent / "lm").eval()
    bare.load_state_dict(loaded[0].language_model.state_dict())
    bare.generation_config.eos_token_id = None
    return bare, vision.load_vision("Qwen2VLProcessor", str(folder.parent / "lm"))


def turns(*contents: str, images: int = 0, clips: int = 0) -> list[Any]:
    roles = ("user", "assistant") * len(contents)
    return place_media([{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)], images=images, clips=clips)


Row = tuple[list[Any], list[Any], list[Any]]
ROWS: list[Row] = [
    (turns("hello world"), [], []),
    (turns("hello", images=1), [], [BRIGHT]),
    (turns("one", clips=1), [LOW], []),
    (turns("one two", images=1, clips=1), [HIGH], [DARK]),
    (turns("a <audio> b <image> c", "well", "<image> d <audio> e <image>", images=3, clips=2), [LOW, HIGH], [WIDE, DARK, BRIGHT]),
    (turns("", images=1, clips=1), [LOW], [WIDE]),
]


def batch_of(processor: AudioGraftProcessor, rows: Sequence[Row], padding_side: str = "left") -> Any:
    texts = [processor.build_prompt(messages) for messages, _, _ in rows]
    clips, images = [clip for _, own, _ in rows for clip in own], [image for _, _, own in rows for image in own]
    return processor(texts, audio=clips, images=images, padding_side=padding_side)


def new_tokens(model: Any, batch: Any, **options: Any) -> list[list[int]]:
    return model.generate(**batch, **GREEDY, **options)[:, batch["input_ids"].shape[1] :].tolist()


SEEN = {
    "one image": (turns("what is it", images=1), [BRIGHT]),
    "two sizes": (turns("is <image> like <image>", images=2), [DARK, WIDE]),
    "two turns": (turns("hello <image>", "well", "and <image> or <image>", images=3), [BRIGHT, WIDE, DARK]),
    "none": (turns("hello"), []),
}


@pytest.mark.parametrize("case", SEEN)
def test_without_audio_nothing_is_other_than_before_grafting(loaded: Any, stock: Any, case: str) -> None:
    (model, processor), (bare, its_processor) = loaded, stock
    messages, images = SEEN[case]
    prompt = its_processor.apply_chat_template(messages, add_generation_prompt=True)
    expected = its_processor(text=[prompt], images=images or None, return_tensors="pt")
    batch = batch_of(processor, [(messages, [], images)])
    if not images:
        del expected["mm_token_type_ids"]
    assert set(batch) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor), name
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, bare(**expected).logits)
    assert torch.equal(model.generate(**batch, **GREEDY), bare.generate(**expected, **GREEDY))
    # The order of the keywords of generate's own search is no part of it: beams, and several sequences.
    for options in ({"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}):
        assert torch.equal(model.generate(**batch, **GREEDY, **options), bare.generate(**expected, **GREEDY, **options))


def test_a_batch_without_audio_is_the_batch_of_the_model_before(loaded: Any, stock: Any) -> None:
    (model, processor), (bare, its_processor) = loaded, stock
    rows = list(SEEN.values())
    prompts = [its_processor.apply_chat_template(messages, add_generation_prompt=True) for messages, _ in rows]
    images = [image for _, own in rows for image in own]
    for side in ("left", "right"):
        expected = its_processor(text=prompts, images=images, padding=True, padding_side=side, return_tensors="pt")
        batch = batch_of(processor, [(messages, [], own) for messages, own in rows], side)
        assert set(batch) == set(expected)
        assert all(torch.equal(batch[name], tensor) for name, tensor in expected.items())
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, bare(**expected).logits)
    left = batch_of(processor, [(messages, [], own) for messages, own in rows])
    assert torch.equal(model.generate(**left, **GREEDY), bare.generate(**left, **GREEDY))


def test_a_batch_of_all_kinds_of_rows_is_its_rows(loaded: Any) -> None:
    model, processor = loaded
    alone = [batch_of(processor, [row]) for row in ROWS]
    written = [new_tokens(model, batch)[0] for batch in alone]
    assert len({tuple(tokens) for tokens in written}) == len(ROWS)
    assert new_tokens(model, batch_of(processor, ROWS)) == written
    with torch.no_grad():
        single = [model(**batch).logits[0] for batch in alone]
        right, left = (batch_of(processor, ROWS, side) for side in ("right", "left"))
        behind, before = model(**right).logits, model(**left).logits
    for row, logits in enumerate(single):
        n = len(logits)
        torch.testing.assert_close(behind[row, :n], logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(before[row, -n:], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_beams_of_a_mixed_batch_are_those_of_its_rows(loaded: Any, options: dict[str, int]) -> None:
    model, processor = loaded
    alone = [tokens for row in ROWS for tokens in new_tokens(model, batch_of(processor, [row]), **options)]
    assert new_tokens(model, batch_of(processor, ROWS), **options) == alone


def test_what_is_seen_and_what_is_heard_both_count(loaded: Any) -> None:
    model, processor = loaded

    def last(clip: Any, image: Image.Image) -> torch.Tensor:
        with torch.no_grad():
            return model(**batch_of(processor, [(ROWS[3][0], [clip], [image])])).logits[0, -1]

    reference = last(HIGH, DARK)
    for other in (last(LOW[: len(HIGH)], DARK), last(HIGH, builders.picture(250, 28, 84))):
        assert not torch.allclose(reference, other, atol=1e-3)


def step_by_hand(model: Any, batch: Any, n_tokens: int = 6) -> list[list[int]]:
    """Greedy tokens by the model's forward pass and its cache alone."""
    mask, written, options = batch["attention_mask"], [], {}
    output = model(**batch, use_cache=True)
    deltas = model.language_model.model.rope_deltas
    for _ in range(n_tokens):
        token = output.logits[:, -1].argmax(-1, keepdim=True)
        written.append(token)
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
        if len(mask) > 1:
            # With a mask Qwen2-VL counts the positions of the whole prompt again, and so needs to be told those of the step.
            options = {"attention_mask": mask, "position_ids": (mask.sum(1, keepdim=True) - 1 + deltas).expand(3, -1, -1)}
        output = model(token, past_key_values=output.past_key_values, use_cache=True, **options)
    return torch.cat(written, dim=1).tolist()


@pytest.mark.parametrize("picked", [[0], [1], [2], [3], [4], [0, 1, 2, 3, 4, 5]])
def test_generation_with_its_cache_is_the_model_step_by_step(loaded: Any, picked: list[int]) -> None:
    model, processor = loaded
    batch = batch_of(processor, [ROWS[row] for row in picked])
    with torch.no_grad():
        written = step_by_hand(model, batch)
        assert new_tokens(model, batch) == written
        # Without any cache, all of the prompt anew for each token.
        if len(picked) == 1:
            ids, types = batch["input_ids"], batch.get("mm_token_type_ids")
            for token in written[0]:
                grown = {**batch, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
                grown |= {} if types is None else {"mm_token_type_ids": torch.nn.functional.pad(types, (0, ids.shape[1] - types.shape[1]))}
                assert int(model(**grown).logits[0, -1].argmax()) == token
                ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_without_a_mask_audio_is_not_taken_for_pads(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = loaded
    monkeypatch.setattr(model.language_model.generation_config, "pad_token_id", 0)
    batch = batch_of(processor, [ROWS[3]])
    assert new_tokens(model, {**batch, "attention_mask": None}) == new_tokens(model, batch)


def test_what_one_thread_heard_no_other_thread_hears() -> None:
    embeddings = torch.nn.Embedding(9, 4)
    ids, heard = torch.arange(6).view(2, 3), torch.ones(2, 3, 4)
    with embeddings_give(embeddings, heard), ThreadPoolExecutor(1) as other:
        assert torch.equal(other.submit(embeddings, ids).result(), embeddings.weight[ids])
        assert torch.equal(embeddings(ids), heard)


@pytest.mark.parametrize("later", [0, 2])
def test_a_batch_of_pictures_leaves_nothing_behind_for_the_next(loaded: Any, later: int) -> None:
    """Qwen2-VL keeps on the model how far pictures moved the positions of the last batch."""
    model, processor = loaded
    batch = batch_of(processor, [ROWS[later]])
    model.language_model.model.rope_deltas = None
    with torch.no_grad():
        expected = new_tokens(model, batch)
        logits = model(**batch).logits
        for before in ([ROWS[4]], ROWS):
            model.generate(**batch_of(processor, before), **GREEDY)
            assert new_tokens(model, batch) == expected
            model(**batch_of(processor, before))
            assert torch.equal(model(**batch).logits, logits)
            model(**batch_of(processor, before))
            assert step_by_hand(model, batch) == expected


def test_audio_takes_positions_as_text_does(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positions of a row with audio are those that the model gives to the same row with text in the place of the clips."""
    model, processor = loaded
    seen: list[torch.Tensor] = []
    text_model = model.language_model.model.language_model
    forward = text_model.forward

    def spy(*args: Any, position_ids: Any = None, **options: Any) -> Any:
        seen.append(position_ids)
        return forward(*args, position_ids=position_ids, **options)

    monkeypatch.setattr(text_model, "forward", spy)
    for row in (ROWS[3], ROWS[4]):
        batch = batch_of(processor, [row])
        is_audio = batch["input_ids"] == processor.audio_token_id
        read = {name: batch[name] for name in ("attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids")}
        with torch.no_grad():
            model(**batch)
            model.language_model(input_ids=batch["input_ids"].masked_fill(is_audio, 10), **read)
        heard, instead = seen[-2:]
        assert torch.equal(heard, instead)
        assert not torch.equal(heard[0], heard[1])


def test_training_reads_the_prompt_of_generation_and_learns_the_answer_alone(loaded: Any) -> None:
    model, processor = loaded
    features = [[processor.features(clip) for clip in clips] for _, clips, _ in ROWS]
    frames = [[clip.shape[1] for clip in own] for own in features]
    rows = [
        processor.training_inputs(messages, "one two" * (number % 3), own, images)
        for number, ((messages, _, images), own) in enumerate(zip(ROWS, frames, strict=True))
    ]
    for row, (messages, _, images), own in zip(rows, ROWS, frames, strict=True):
        prompt = processor.prompt_inputs(messages, own, images)
        n = len(prompt["input_ids"])
        assert row["input_ids"][:n] == prompt["input_ids"]
        assert row["labels"] == [-100] * n + row["input_ids"][n:]
        assert set(row["vision"]) == set(prompt["vision"]) == ({"pixel_values", "image_grid_thw", "mm_token_type_ids"} if images else set())
        if images:
            assert len(row["vision"]["mm_token_type_ids"]) == len(row["input_ids"])
            assert row["vision"]["mm_token_type_ids"][n:].sum() == 0
    batch = processor.collate(rows, [clip for own in features for clip in own], padding_side="right")
    assert batch["mm_token_type_ids"].shape == batch["input_ids"].shape
    assert torch.equal(batch["mm_token_type_ids"] == 1, batch["input_ids"] == 4)
    with torch.no_grad():
        together = model(**batch)
        losses = [model(**processor.collate([row], own, padding_side="right")).loss for row, own in zip(rows, features, strict=True)]
    labelled = [sum(label != -100 for label in row["labels"]) for row in rows]
    expected = sum(loss * count for loss, count in zip(losses, labelled, strict=True)) / sum(labelled)
    torch.testing.assert_close(together.loss, expected)


def test_gradients_reach_the_projector_beside_a_picture(loaded: Any) -> None:
    model, processor = loaded
    messages, clips, images = ROWS[3]
    features = [processor.features(clip) for clip in clips]
    row = processor.training_inputs(messages, "one", [clip.shape[1] for clip in features], images)
    model.train()
    try:
        model(**processor.collate([row], features, padding_side="right")).loss.backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.projector.parameters())
    finally:
        model.eval()
        model.zero_grad()


def test_the_auto_class_opens_the_eyes_too(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor.vision_processor).__name__ == processor.vision_class == "Qwen2VLProcessor"
    assert processor.vision_processor.tokenizer is processor.tokenizer


@pytest.mark.parametrize(
    ("text", "images", "counts"),
    [
        ("<|image_pad|>", 0, "1 image placeholders in the text but 0 images"),
        ("<|image_pad|><|image_pad|>", 1, "2 image placeholders in the text but 1 images"),
        ("hello", 2, "0 image placeholders in the text but 2 images"),
        ("<|video_pad|>", 0, "1 video placeholders in the text but 0 videos"),
    ],
)
def test_placeholders_and_pictures_must_agree(loaded: Any, text: str, images: int, counts: str) -> None:
    with pytest.raises(ValueError, match=counts):
        loaded[1]([text], images=[BRIGHT] * images)


def test_parts_and_pictures_must_agree(loaded: Any) -> None:
    processor = loaded[1]
    with pytest.raises(ValueError, match="1 image placeholders in the text but 0 images"):
        processor.prompt_inputs(media_messages("hello", images=1), [])
    with pytest.raises(ValueError, match="0 image placeholders in the text but 1 images"):
        processor.training_inputs(media_messages("hello"), "x", [], [BRIGHT])


@pytest.mark.parametrize(("token", "what"), [("<|image_pad|>", "an image"), ("<|video_pad|>", "a video"), ("<|audio|>", "a clip")])
def test_a_placeholder_in_somebodys_text_is_one_line(loaded: Any, token: str, what: str) -> None:
    processor = loaded[1]
    for messages in (turns(f"see {token}", images=1), turns("hello", f"well {token}", "and")):
        with pytest.raises(DataError, match="stands for") as error:
            processor.build_prompt(messages)
        assert str(error.value) == f"the text contains {token}, which stands for {what}: take it out"
    with pytest.raises(DataError, match="stands for"):
        processor.training_inputs(media_messages("hello"), token, [])


def test_a_template_that_drops_a_picture_is_one_line(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = loaded[1]
    template = "{% for m in messages[1:] %}" + builders.VISION_TEMPLATE.partition("%}")[2]
    monkeypatch.setattr(processor.vision_processor, "chat_template", template)
    with pytest.raises(DataError, match="chat template kept 1 of 2 images: put images into user turns alone"):
        processor.build_prompt(turns("<image> hello", "well", "<image>", images=2))


def test_a_template_that_takes_lists_alone_gets_lists(folder: Path) -> None:
    processor = AudioGraftProcessor.from_pretrained(folder)
    processor.vision_processor.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert "hello" not in processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], chat_template=processor.vision_processor.chat_template, tokenize=False
    )
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "well"}, {"role": "user", "content": "and"}]
    prompt = processor.build_prompt(messages)
    assert [prompt.count(word) for word in ("hello", "well", "and")] == [1, 1, 1]
    assert processor.end_of_turn == "<|im_end|>"


def test_a_picture_that_the_processor_refuses_is_one_line(loaded: Any) -> None:
    with pytest.raises(ImageError, match=r"the model's processor refuses a picture \(.*aspect ratio.*\): crop or pad it$") as error:
        loaded[1].prompt_inputs(media_messages("x", images=1), [], [Image.new("RGB", (3000, 2))])
    assert "\n" not in str(error.value)
    assert str(refusal("a video", ValueError("no\n such  mode"))) == "the model's processor refuses a video (no such mode): convert it"


def test_a_model_without_eyes_says_so() -> None:
    _, processor = builders.graft()
    for messages in (media_messages("hello", images=1), media_messages("<video> hello", videos=1)):
        with pytest.raises(ConfigError, match="this model has no eyes: it takes no images or videos; leave them out"):
            processor.build_prompt(messages)
    with pytest.raises(ConfigError, match="no eyes"):
        processor.prompt_inputs(media_messages("hello"), [], [BRIGHT])


def test_settings_for_videos_outlive_an_environment_without_them(folder: Path, loaded: Any, tmp_path: Path) -> None:
    """What opens the model where torchvision is installed finds what it needs; `test_videos.py` does so."""
    given = json.loads((folder.parent / "lm" / "preprocessor_config.json").read_text())
    assert json.loads((folder / "vision_processor" / "video_preprocessor_config.json").read_text()) == given
    loaded[1].save_pretrained(tmp_path)
    assert json.loads((tmp_path / "vision_processor" / "video_preprocessor_config.json").read_text()) == given


VIDEO = Video(builders.np.zeros((2, 56, 56, 3), dtype="uint8"), 2.0, "v.mp4")


@pytest.mark.skipif(is_torchvision_available(), reason="with torchvision there are videos")
def test_videos_without_torchvision_are_one_line(loaded: Any) -> None:
    processor = loaded[1]
    with pytest.raises(ConfigError, match="videos need the torchvision made for torch .*: pip install --no-deps 'torchvision=="):
        processor(["<|video_pad|>"], videos=[VIDEO])
    with pytest.raises(ConfigError, match="pip install --no-deps"):
        processor.prompt_inputs(media_messages("x", videos=1), [], videos=[VIDEO])


@pytest.mark.parametrize(
    ("version", "command"),
    [
        ("2.13.0+cpu", "pip install --no-deps 'torchvision==0.28.*' --index-url https://download.pytorch.org/whl/cpu"),
        ("2.13.0+cu130", "pip install --no-deps 'torchvision==0.28.*' --index-url https://download.pytorch.org/whl/cu130"),
        ("2.6.1+rocm6.2.4", "pip install --no-deps 'torchvision==0.21.*' --index-url https://download.pytorch.org/whl/rocm6.2.4"),
        ("2.13.0", "pip install --no-deps 'torchvision==0.28.*'"),
        ("2.14.0a0+gitdeadbee", "pip install --no-deps 'torchvision==0.29.*'"),
    ],
)
def test_the_torchvision_that_is_named_leaves_torch_as_it_is(loaded: Any, monkeypatch: pytest.MonkeyPatch, version: str, command: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(loaded[1].vision_processor, "video_processor", None, raising=False)
    monkeypatch.setattr(type(loaded[1].vision_processor), "video_settings", {"size": 1}, raising=False)
    with pytest.raises(ConfigError) as error:
        check_takes_videos(loaded[1].vision_processor)
    assert str(error.value) == f"videos need the torchvision made for torch {version}: {command}"


def test_a_model_that_sees_no_videos_says_so(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = loaded[1]
    monkeypatch.setattr(vision.transformers.Qwen2VLProcessor, "get_attributes", classmethod(lambda cls: ["image_processor", "tokenizer"]))
    with pytest.raises(ConfigError, match="this model takes no videos: give it images"):
        processor.prompt_inputs(media_messages("x", videos=1), [], videos=[VIDEO])


def test_missing_pillow_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "is_vision_available", lambda: False)
    for load in (lambda: load_graft(folder), lambda: graft(folder.parent / "whisper", folder.parent / "lm", folder.parent / "again")):
        with pytest.raises(ConfigError, match=r"can't load the .*processor of .*pip install 'audiograft\[vision\]'") as error:
            load()
        assert "\n" not in str(error.value)


def test_what_else_a_processor_lacks_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ImportError("\nThe processor requires the Torchvision library.\nSee elsewhere.\n")

    monkeypatch.setattr(vision.transformers.Qwen2VLProcessor, "from_pretrained", fail)
    with pytest.raises(ConfigError, match=r": The processor requires the Torchvision library$"):
        load_graft(folder)
