"""What a finished run shows to people: one self-contained HTML page, and a picture for a README."""
