"""What OpenVINO says where a disk is full becomes the sentence that everything else says then."""

from __future__ import annotations

import errno
from pathlib import Path

import openvino
import pytest

from lora_sam.deployment.ir_parts import save_ir
from lora_sam.deployment.quantizing.compression import save


class NoOps:
    def get_ordered_ops(self) -> list[object]:
        return []


@pytest.mark.parametrize("saved", [save, lambda model, path: save_ir(model, path, half=False)])
def test_a_full_disk_is_no_traceback(saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["basic_ios::clear: iostream error", "the model is broken"]

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(said.pop(0))

    monkeypatch.setattr(openvino, "save_model", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        saved(NoOps(), tmp_path / "a.xml")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="broken"):
        saved(NoOps(), tmp_path / "a.xml")
