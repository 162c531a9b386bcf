"""See labels and prompts before training: a contact sheet of what a configuration would train on."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.preview import preview

    sys.exit(preview(sys.argv[1:]))
