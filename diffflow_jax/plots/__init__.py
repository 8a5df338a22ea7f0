"""Figures of all that the library computes; each returns a matplotlib Figure."""
