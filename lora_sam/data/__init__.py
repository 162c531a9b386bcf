"""Labelled images on disk, checked and turned into samples."""
