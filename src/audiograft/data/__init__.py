"""Rows of data: manifests and how they are made. Knows no tokens."""
