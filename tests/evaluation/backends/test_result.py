"""`backends.json`: read back as it was written, refused when it was changed, and summed up truthfully."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_sam.core.errors import AdapterError
from lora_sam.evaluation.backends.result import Comparison, Measured, read_backends, speeds, verdicts, write_backends
from lora_sam.evaluation.backends.threshold import TunedThreshold

REMEDY = "python -m lora_sam.evaluate run=here"


def test_round_trip(comparison: Callable[..., Comparison], tmp_path: Path) -> None:
    tuned = TunedThreshold(0.7, 0.82, 0.8, 12, 127)
    made = comparison(tuned_threshold=tuned, tuned_by="tuned", mask_threshold=0.7, fail_under=0.5)
    write_backends(tmp_path / "backends.json", made)
    assert read_backends(tmp_path / "backends.json", REMEDY) == made
    content = json.loads((tmp_path / "backends.json").read_text())
    wanted = {"iou", "dice", "f1", "map", "iou_with_torch", "encoder_ms", "decoder_ms", "bytes", "peak_memory_bytes"}
    for entry in content["backends"].values():
        assert wanted <= entry.keys()
    # a later version may say more
    (tmp_path / "backends.json").write_text(json.dumps({**content, "novel": 1}))
    assert read_backends(tmp_path / "backends.json", REMEDY) == made


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("schema_version", 2, "schema version 2, this lora_sam reads 1"),
        ("images", -1, "images: Input should be greater than or equal to 0"),
        ("images", "24", "images: Input should be a valid integer"),
        ("backends.int8.iou", 1.5, "backends.int8.iou: Input should be less than or equal to 1"),
        ("backends.int8.iou", None, "backends.int8.iou: Input should be a valid number"),
        ("backends.int8.encoder_ms_range", [1.0], "backends.int8.encoder_ms_range"),
        ("backends.int8.runtime", "tpu", "backends.int8.runtime: Input should be 'torch' or 'openvino'"),
        ("backends", {}, "no back end"),
        ("host", {"cpu": "a CPU"}, "host.cores: "),
        ("host.cores", 0, "host.cores: Input should be greater than or equal to 1"),
        ("backends", [], "backends: Input should be an object"),
    ],
)
def test_other_content_is_refused(
    place: str, value: Any, message: str, comparison: Callable[..., Comparison], tmp_path: Path
) -> None:
    path = tmp_path / "backends.json"
    write_backends(path, comparison())
    content = json.loads(path.read_text())
    *parents, last = place.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(AdapterError, match=REMEDY) as caught:
        read_backends(path, REMEDY)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_unknown_and_damaged(comparison: Callable[..., Comparison], tmp_path: Path) -> None:
    path = tmp_path / "backends.json"
    with pytest.raises(AdapterError, match=f"not there yet; make it with: {REMEDY}"):
        read_backends(path, REMEDY)
    write_backends(path, comparison())
    path.write_text(path.read_text().replace('"int8": {', '"evil\\nname": {'))
    with pytest.raises(AdapterError, match="unknown back end 'evil") as caught:
        read_backends(path, REMEDY)
    assert "\n" not in str(caught.value)
    path.write_text("{")
    with pytest.raises(AdapterError, match="damaged"):
        read_backends(path, REMEDY)


def test_what_is_not_finite_is_never_written(comparison: Callable[..., Comparison], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_backends(tmp_path / "backends.json", comparison(mask_threshold=float("nan")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("difference", "interval", "sentence"),
    [
        (-0.0031, (-0.005, -0.001), "int8 loses 0.31 points of IoU against fp32 (95 % interval 0.10 to 0.50)"),
        (0.0031, (0.001, 0.005), "int8 gains 0.31 points of IoU over fp32 (95 % interval 0.10 to 0.50)"),
        (
            -0.0002,
            (-0.001, 0.0006),
            "int8 loses nothing measurable against fp32: IoU -0.02 points (95 % interval -0.10 to +0.06)",
        ),
        (0.0, (0.0, 0.0), "int8 loses nothing against fp32: every image has the same IoU"),
    ],
)
def test_verdicts(
    difference: float,
    interval: tuple[float, float],
    sentence: str,
    comparison: Callable[..., Comparison],
    measured: Callable[..., Measured],
) -> None:
    entry = measured(against="fp32", iou_difference=difference, iou_difference_interval=interval)
    assert verdicts(comparison(backends={"tuned": measured(), "int8": entry})) == (sentence,)
    assert len(sentence) <= 100


def test_the_gate_lets_the_base_through(comparison: Callable[..., Comparison]) -> None:
    # base 0.6, tuned 0.8, int8 0.797
    assert comparison().failed == ()
    assert comparison(fail_under=0.797).failed == ()
    assert comparison(fail_under=0.798).failed == ("int8",)
    assert comparison(fail_under=0.9).failed == ("tuned", "int8")


def test_speeds_are_multiples_of_torch(
    comparison: Callable[..., Comparison], measured: Callable[..., Measured]
) -> None:
    assert speeds(comparison()) == "speed of encoding, tuned is 1: int8 4.00"
    assert speeds(comparison(backends={"int8": measured()})) is None
    assert speeds(comparison(backends={"tuned": measured()})) is None
