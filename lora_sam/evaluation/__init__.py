"""Measuring predictors side by side on the same images with the same prompts; needs no torch model."""
