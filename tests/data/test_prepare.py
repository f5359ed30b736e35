"""What `prepare` makes of rows of every kind, and that it goes on where it was interrupted."""

from __future__ import annotations
