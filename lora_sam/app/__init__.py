"""What the browser shows: base and tuned masks of one image, prompt by prompt; no web package in here."""
