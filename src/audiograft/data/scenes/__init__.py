"""Rendered scenes of coloured shapes, and questions about them: pictures for a model that is to see and hear, with answers that are known."""
