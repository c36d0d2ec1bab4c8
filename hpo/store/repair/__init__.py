"""Damage of a store: all of it found, and mended where that is possible, after a copy."""
