"""Runs a model over a manifest and scores what it wrote."""
