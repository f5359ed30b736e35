"""Synthetic speech: sentences from a grammar, spoken by espeak-ng and flite."""
