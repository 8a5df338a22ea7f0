"""Metrics of all pairs of rows, which share one pass over their distances."""
