"""Pure functions over references and hypotheses; jiwer and SciPy do the work."""
