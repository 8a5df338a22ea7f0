"""Figures of what the library computes; each returns a Figure."""
