"""The processor of a vision-language model, with what is installed: it looks at each row by itself, and rows are put together here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto import processing_auto
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_torchvision_available, is_vision_available

from audiograft.types import ConfigError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from audiograft.images import Video

_VIDEO_PART = "video_processor"
_KEPT = "video_settings"
"""Attribute of the class of a processor for images alone; one of the processor itself would be written with it."""
PICTURES = ("image", "video")
"""Kinds of parts that eyes are needed for."""


def vision_class(text_config: Any) -> str | None:
    """Name of the processor class for a language model of this configuration; None where transformers has none."""
    names: Any = processing_auto.PROCESSOR_MAPPING_NAMES  # type: ignore[attr-defined]
    name: str | None = names.get(text_config.model_type)
    return name


def load_vision(class_name: str, name: str, **kwargs: Any) -> Any:
    """A vision-language model's processor; for images alone where torchvision, which transformers needs for videos, is not installed.

    Args:
        class_name: of the processor, in transformers.
        name: folder or hub id.
        **kwargs: for `from_pretrained`.

    Raises:
        ConfigError: Pillow is not installed.
        ImportError: this model's processor needs something else that is not.
    """
    if not is_vision_available():
        raise ConfigError("images need Pillow: pip install 'audiograft[vision]'")
    processor_class = getattr(transformers, class_name)
    parts = processor_class.get_attributes()
    if _VIDEO_PART in parts:
        settings = _video_settings(name, kwargs)
        if settings is None or not is_torchvision_available():
            found = classmethod(lambda cls: [part for part in parts if part != _VIDEO_PART])
            # The same name, because it is written into the saved processor, which is to be opened as usual where torchvision is installed.
            processor_class = type(class_name, (processor_class,), {"get_attributes": found, _KEPT: settings})
    return processor_class.from_pretrained(name, **kwargs)


def _video_settings(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What transformers would make the part for videos of; None where there is nothing."""
    for file in (PROCESSOR_NAME, VIDEO_PROCESSOR_NAME, IMAGE_PROCESSOR_NAME):
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **kwargs)
        content = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        settings: dict[str, Any] | None = content.get(_VIDEO_PART) if file == PROCESSOR_NAME else content
        if settings:
            return settings
    return None


def save_vision(vision_processor: Any, folder: Path) -> None:
    """Write a vision-language model's processor, with the settings for videos, also where it was opened for images alone."""
    vision_processor.save_pretrained(folder)
    if settings := getattr(vision_processor, _KEPT, None):
        (folder / VIDEO_PROCESSOR_NAME).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def placeholders(vision_processor: Any) -> dict[str, str]:
    """Kind (`image`, `video`) -> what stands for one in a prompt, where the model takes that kind; nothing without eyes."""
    tokens = {kind: getattr(vision_processor, f"{kind}_token", None) for kind in PICTURES}
    return {kind: token for kind, token in tokens.items() if token}


def look(
    vision_processor: Any, text: str, images: Sequence[Image.Image], videos: Sequence[Video], **options: Any
) -> tuple[list[int], dict[str, Any]]:
    """What a vision-language model's own processor makes of one prompt.

    Args:
        vision_processor: the processor.
        text: from the chat template, with a placeholder a picture.
        images: in order of their placeholders.
        videos: likewise; their frames are all taken.
        **options: for the processor.

    Returns:
        The ids of the prompt, and what belongs to the pictures, as the model takes it: what has a value a token as (positions,), the rest with images
        or videos in its first dimension.

    Raises:
        ConfigError: videos, and what they need is not installed, or the model takes none.
        ImageError: the processor refuses a picture.
    """
    if videos:
        check_takes_videos(vision_processor)
        options |= {"videos": [video.frames for video in videos], "video_metadata": [_metadata(video) for video in videos], "do_sample_frames": False}
    try:
        found = vision_processor(text=[text], images=list(images) or None, add_special_tokens=False, return_tensors="pt", **options)
    except ValueError as error:
        raise refusal("a picture" if images else "a video", error) from error
    ids: list[int] = found.pop("input_ids")[0].tolist()
    found.pop("attention_mask", None)
    return ids, {name: value[0] if _by_token(name) else value for name, value in found.items()}


def refusal(what: str, error: ValueError) -> ImageError:
    """The error for a picture or a video that a vision-language model's own processor does not take."""
    said = " ".join(str(error).split())
    mend = "crop or pad it" if "ratio" in said else "convert it"
    return ImageError(f"the model's processor refuses {what} ({said}): {mend}")


def check_takes_videos(vision_processor: Any) -> None:
    """Raises ConfigError where a model that has a placeholder for videos can't look at them."""
    if _VIDEO_PART not in getattr(transformers, type(vision_processor).__name__).get_attributes():
        raise ConfigError("this model takes no videos: give it images")
    if getattr(vision_processor, _VIDEO_PART, None) is None:
        if not getattr(vision_processor, _KEPT, None):
            raise ConfigError("this model has no settings for videos: graft it again")
        raise ConfigError(f"videos need the torchvision made for torch {torch.__version__}: {_torchvision_command(torch.__version__)}")


def _torchvision_command(torch_version: str) -> str:
    """How to install the torchvision of a torch, such as 2.13.0+cpu. By its name alone pip would take the newest, and replace torch for it."""
    release, _, build = torch_version.partition("+")
    major, minor = map(int, release.split(".")[:2])
    wanted = f"torchvision==0.{minor + 15}.*" if major == 2 else "torchvision"  # 0.15 came with 2.0, and the two go on together
    # Of the builds of one version PyPI has a single one; what it is built for stands behind the plus.
    index = f" --index-url https://download.pytorch.org/whl/{build}" if re.fullmatch(r"cpu|xpu|(cu|rocm)[\d.]+", build) else ""
    return f"pip install --no-deps '{wanted}'{index}"


def _metadata(video: Video) -> dict[str, Any]:
    n_frames, height, width, _ = video.frames.shape
    size = {"height": height, "width": width, "total_num_frames": n_frames, "frames_indices": list(range(n_frames))}
    return {**size, "fps": video.fps, "duration": n_frames / video.fps}


def _by_token(name: str) -> bool:
    """Whether something has a value a token."""
    return name.endswith("token_type_ids")


def behind(vision: Mapping[str, Any], n_tokens: int) -> dict[str, Any]:
    """What `look` found, for a prompt with so many more tokens of text behind it."""
    return {name: torch.nn.functional.pad(value, (0, n_tokens)) if _by_token(name) else value for name, value in vision.items()}


def collate_vision(rows: Sequence[Mapping[str, Any]], positions: int, padding_side: str = "right") -> dict[str, Any]:
    """What `look` found for each row, as one batch; nothing where no row has a picture.

    Args:
        rows: an empty one for a row without pictures.
        positions: of the batch.
        padding_side: `left` or `right`, as its tokens are padded.

    Returns:
        Token types (rows, positions), 0 at pads and in rows without pictures; the rest one behind the other, padded with zeros where pictures differ
        in size.
    """
    batch: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        if _by_token(name):
            batch[name] = torch.stack([_padded(row.get(name, values[0][:0]), positions, padding_side) for row in rows])
        elif isinstance(values[0], Tensor):
            batch[name] = _concatenated(values)
        else:
            batch[name] = [item for value in values for item in value]
    return batch


def _padded(row: Tensor, positions: int, padding_side: str) -> Tensor:
    pads = positions - len(row)
    return torch.nn.functional.pad(row, (pads, 0) if padding_side == "left" else (0, pads))


def _concatenated(values: Sequence[Tensor]) -> Tensor:
    """Along the first dimension, the others as long as the longest."""
    shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    return torch.cat([torch.nn.functional.pad(value, _missing(value.shape[1:], shape)) for value in values])


def _missing(has: Sequence[int], needs: Sequence[int]) -> list[int]:
    """As `pad` wants it: from the last dimension on, in front and behind."""
    return [pads for size, wanted in zip(reversed(has), reversed(needs), strict=True) for pads in (0, wanted - size)]
