"""The grafted model. Importing this registers it with the transformers Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor

from audiograft.model.checkpoint import load_graft, resolve_model
from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.graft import assemble, graft
from audiograft.model.modeling import AudioGraftForConditionalGeneration, AudioGraftOutput
from audiograft.model.processing import AudioGraftProcessor, audio_messages

AutoConfig.register("audiograft", AudioGraftConfig)
AutoModel.register(AudioGraftConfig, AudioGraftForConditionalGeneration)
AutoModelForMultimodalLM.register(AudioGraftConfig, AudioGraftForConditionalGeneration)
AutoProcessor.register(AudioGraftConfig, AudioGraftProcessor)

__all__ = [
    "AudioGraftConfig",
    "AudioGraftForConditionalGeneration",
    "AudioGraftOutput",
    "AudioGraftProcessor",
    "assemble",
    "audio_messages",
    "graft",
    "load_graft",
    "resolve_model",
]
