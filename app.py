"""Compare base and tuned masks in a browser: `python app.py`, then open the address it prints."""

from __future__ import annotations

import sys

from lora_sam.cli.app import serve_app

if __name__ == "__main__":
    sys.exit(serve_app(sys.argv[1:]))
