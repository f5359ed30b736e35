"""Checkpoints of published systems, opened as they lie there: system A's layout inside Qwen2-VL's, system B's checkpoint.pt."""
