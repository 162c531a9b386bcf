"""Attention of the image encoder: split projections, tiles, and which kernel is the fastest here."""
