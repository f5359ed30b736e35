"""Stock audio language models of transformers as they are: Qwen2-Audio, Voxtral, AudioFlamingo3, Granite Speech."""

from audiograft.model.stock.loading import is_stock, load_stock
from audiograft.model.stock.modeling import StockAudioModel
from audiograft.model.stock.processing import StockProcessor

__all__ = ["StockAudioModel", "StockProcessor", "is_stock", "load_stock"]
