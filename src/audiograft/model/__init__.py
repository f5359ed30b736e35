"""The grafted model. Importing this registers it with the transformers Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor

from audiograft.messages import audio_messages
from audiograft.model.checkpoint import load_graft, resolve_model
from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.graft import assemble, graft, graft_in_memory
from audiograft.model.load import load_adapter, load_model, load_processor
from audiograft.model.modeling import AudioGraftForConditionalGeneration
from audiograft.model.outputs import AudioGraftOutput
from audiograft.model.processing import AudioGraftProcessor

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
    "graft_in_memory",
    "load_adapter",
    "load_graft",
    "load_model",
    "load_processor",
    "resolve_model",
]
