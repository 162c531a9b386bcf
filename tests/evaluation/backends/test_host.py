"""Facts about the machine."""

from __future__ import annotations

import json
import os
import platform
import socket
from dataclasses import asdict
from pathlib import Path

import openvino
import pytest
import torch

from lora_sam.core import processor
from lora_sam.evaluation.backends import host


def test_facts_are_plain_and_name_no_machine() -> None:
    facts = host.this_host(3)
    assert (facts.threads, facts.torch_threads) == (3, torch.get_num_threads())
    assert 1 <= facts.cores <= (os.cpu_count() or 1)
    assert facts.versions["torch"] == torch.__version__.partition("+")[0]
    assert openvino.__version__.startswith(facts.versions["openvino"])
    text = json.dumps(asdict(facts))
    assert socket.gethostname() not in text
    assert platform.system() in text


def test_the_name_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n\nmodel name\t: Some  CPU @ 2 GHz\n")
    monkeypatch.setattr(processor, "_CPUINFO", information)
    assert host.cpu_name() == "Some CPU @ 2 GHz"
    information.write_text("processor\t: 0\n")
    assert host.cpu_name() == (platform.processor() or platform.machine())
