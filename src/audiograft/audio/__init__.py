"""The one place that finds and decodes audio."""

from audiograft.audio.decode import AudioInput, Clip, is_silent, load_audio
from audiograft.audio.find import AUDIO_SUFFIXES, find_audio
from audiograft.audio.samples import Waveform

__all__ = ["AUDIO_SUFFIXES", "AudioInput", "Clip", "Waveform", "find_audio", "is_silent", "load_audio"]
