"""Masks for a folder of images: which images, what prompts them, the work that can stop and go on, what it leaves."""
