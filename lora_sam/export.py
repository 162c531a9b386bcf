"""Write a run's merged model as two parts, OpenVINO IR or ONNX, and check that they compute the same."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("export", "python -m lora_sam.export", sys.argv[1:]))
