"""Run by `test_videos.py` in a process of its own: a vision-language model with ears watches videos.

transformers needs torchvision for videos, for its image functions alone. The wheel on PyPI is made for CUDA, and beside a torch without it its own
operators (boxes, regions of interest) don't load; declared here and never called, they let the rest of it be imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms", "qroi_align", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"):
    OPERATORS.define(f"{name}(Tensor x) -> Tensor")
    if name not in ("nms", "qnms", "qroi_align"):
        OPERATORS.define(f"_{name}_backward(Tensor x) -> Tensor")

import av  # noqa: E402
import builders  # noqa: E402
import numpy as np  # noqa: E402
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor  # noqa: E402
from transformers.utils.import_utils import is_torchvision_available  # noqa: E402

from audiograft.images import load_video  # noqa: E402
from audiograft.inference.engine import Engine  # noqa: E402
from audiograft.messages import place_media  # noqa: E402
from audiograft.model import load_graft  # noqa: E402

GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}


def film(path: Path, n_frames: int, width: int, height: int) -> Path:
    """A video at 4 frames a second that gets brighter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=4)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 20 + number * 9, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def place(*contents: str, **counts: int) -> list[Any]:
    roles = ("user", "assistant") * len(contents)
    return place_media([{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)], **counts)


def main(folder: Path) -> None:
    """Compare with the model before grafting, batches with their rows, and the engine with the model."""
    assert is_torchvision_available()
    model, processor = load_graft(folder / "graft")
    model.language_model.generation_config.eos_token_id = None
    bare = Qwen2VLForConditionalGeneration.from_pretrained(folder / "lm").eval()
    stock = Qwen2VLProcessor.from_pretrained(folder / "lm")
    paths = [film(folder / "short.mkv", 9, 56, 56), film(folder / "wide.mkv", 14, 84, 56)]
    short, wide = map(load_video, paths)
    assert (len(short.frames), len(wide.frames)) == (4, 7)
    picture, clip = builders.picture(180), builders.tone(0.5)

    seen = place("a <video> b <image> c", "well", "<video> d", videos=2, images=1)
    batch = processor([processor.build_prompt(seen)], images=[picture], videos=[short, wide])
    told = [{"total_num_frames": len(video.frames), "fps": video.fps, "frames_indices": list(range(len(video.frames)))} for video in (short, wide)]
    expected = stock(
        text=[stock.apply_chat_template(seen, add_generation_prompt=True)],
        images=[picture],
        videos=[short.frames, wide.frames],
        video_metadata=told,
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert set(batch) == set(expected) >= {"pixel_values_videos", "video_grid_thw", "pixel_values", "mm_token_type_ids"}
    assert all(torch.equal(batch[name], tensor) for name, tensor in expected.items())
    assert set(batch["mm_token_type_ids"].unique().tolist()) == {0, 1, 2}
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, bare(**expected).logits)
    for options in ({}, {"num_beams": 3, "num_return_sequences": 2}):
        assert torch.equal(model.generate(**batch, **GREEDY, **options), bare.generate(**expected, **GREEDY, **options))

    rows = [
        (place("hello"), [], [], []),
        (seen, [], [picture], [short, wide]),
        (place("x", clips=1, images=1, videos=1), [clip], [picture], [wide]),
        (place("<audio> x <video>", "y", "<video> <audio>", clips=2, videos=2), [clip, clip[:4000]], [], [wide, short]),
    ]
    written = [new_tokens(model, processor, [row]) for row in rows]
    assert len({str(tokens) for tokens in written}) == len(rows)
    assert new_tokens(model, processor, rows) == [tokens for own in written for tokens in own]

    answer = Engine(model, processor, "vl").ask((clip, 16_000), "x", images=picture, videos=str(paths[1]), max_new_tokens=6)
    assert (answer.videos, answer.images) == ((str(paths[1]),), ("<image>",))
    assert answer.text == processor.tokenizer.decode(written[2][0], skip_special_tokens=True).strip()


def new_tokens(model: Any, processor: Any, rows: list[Any]) -> list[list[int]]:
    prompts = [processor.build_prompt(messages) for messages, *_ in rows]
    clips, images, videos = ([item for row in rows for item in row[kind]] for kind in (1, 2, 3))
    batch = processor(prompts, audio=clips, images=images, videos=videos)
    tokens: list[list[int]] = model.generate(**batch, **GREEDY)[:, batch["input_ids"].shape[1] :].tolist()
    return tokens


if __name__ == "__main__":
    main(Path(sys.argv[1]))
