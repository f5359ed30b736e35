"""Pure functions over references and hypotheses; well-kept libraries align, count and test."""
