"""What the frozen part of the image encoder makes of an image, on disk: written once, checked, shared by all runs."""
