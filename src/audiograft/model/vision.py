"""The processor of a vision-language model, with what is installed."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto import processing_auto
from transformers.utils.import_utils import is_torchvision_available, is_vision_available

from audiograft.types import ConfigError


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
    if not is_torchvision_available():
        parts = [part for part in processor_class.get_attributes() if part != "video_processor"]
        # The same name, because it is written into the saved processor, which is to be opened as usual where torchvision is installed.
        processor_class = type(class_name, (processor_class,), {"get_attributes": classmethod(lambda cls: parts)})
    return processor_class.from_pretrained(name, **kwargs)
