"""Sweeps that are disturbed: their commands, and a run without training that takes the place of one with it."""
