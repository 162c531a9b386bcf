"""Parts of `python -m lora_sam.quantize`: calibration data, what NNCF is asked for, and which attempt is kept."""
