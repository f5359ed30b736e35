"""Clips of speech and of other sounds in noise, for training and testing detectors."""
