"""Positions of pictures in the language model: by the sizes in their files' headers and the vision-language model's own count; none is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiograft.images import image_size
from audiograft.model import AudioGraftConfig, AudioGraftProcessor
from audiograft.model.checkpoint import loading, resolve_model
from audiograft.model.modeling import has_eyes
from audiograft.model.vision import load_vision, refusal, vision_class
from audiograft.types import ConfigError, Sample

_COUNT = "_get_num_multimodal_tokens"
"""What transformers' processors tell vLLM: height and width -> positions. Tests hold it against what is trained on."""


@dataclass(frozen=True)
class Eyes:
    """What a model sees with.

    Attributes:
        model: whose eyes they are.
        processor: the vision-language model's own; None where it is not here, or can't count beforehand.
    """

    model: str
    processor: Any = None

    def positions(self, sample: Sample) -> int:
        """Of the images of a row, as far as they can be counted.

        Raises:
            ImageError: one is missing or broken, or the model's processor refuses its size.
        """
        if self.processor is None or not sample.images:
            return 0
        sizes = [image_size(path) for path in sample.images]
        try:
            found = getattr(self.processor, _COUNT)(image_sizes=[[height, width] for width, height in sizes])
        except ValueError as error:
            raise refusal("a picture", error) from error
        return int(sum(found.num_image_tokens))

    def told(self, n_images: int, n_videos: int) -> str:
        """What is left out of a plan.

        Args:
            n_images: rows with images.
            n_videos: rows with videos.
        """
        left_out = []
        if n_images and self.processor is None:
            why = f"the image processor of {self.model} is not here, or can't count them: name a folder that holds its files"
            left_out.append(f"the images of {n_images} rows are not counted ({why})")
        if n_videos:
            left_out.append(f"the videos of {n_videos} rows are not counted")
        if n_images or n_videos:
            left_out.append("what the eyes compute themselves is not counted")
        return "".join(f"; {line}" for line in left_out)


def find_eyes(config: Any, source: Mapping[str, Any]) -> Eyes | None:
    """The eyes of a model, by what is on this machine; None for a model without.

    Args:
        config: the model's.
        source: {"model": name} of a whole graft, or its parts, among them `language_model`.
    """
    if not isinstance(config, AudioGraftConfig) or not has_eyes(config.text_config):
        return None
    name = str(source.get("model") or source["language_model"])
    file = Path(name).expanduser()
    kind = vision_class(config.text_config)
    try:
        path = str(file.parent) if file.is_file() else resolve_model(name)
        with loading(f"the image processor of {name}", path, local=True):
            if "model" in source:
                processor = AudioGraftProcessor.from_pretrained(path, local_files_only=True).vision_processor
            else:
                processor = None if kind is None else load_vision(kind, path, local_files_only=True)
    except ConfigError:
        return Eyes(name)
    return Eyes(name, processor if hasattr(processor, _COUNT) else None)
