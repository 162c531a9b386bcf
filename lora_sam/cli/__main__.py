"""`python -m lora_sam.cli`: the same as `lora-sam`."""

import sys

from lora_sam.cli.console import console

sys.exit(console())
