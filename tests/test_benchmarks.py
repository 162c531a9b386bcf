"""Benchmarks: the results that are committed, the tables made from them, and that peers compute what we compute."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import like_for_like, record, tables
from benchmarks.__main__ import main
from benchmarks.catalog import all_questions
from benchmarks.over_seeds import combined
from benchmarks.processes import run, take_turns
from benchmarks.questions import (
    cached_epoch,
    demo,
    encode,
    finetune,
    gpu,
    late_blocks,
    lora_memory,
    lora_step,
    sweep,
    zero_shot,
)
from benchmarks.questions.adapter_size import lora_parameters
from benchmarks.record import BenchmarkError, Figure, Outcome, Result, figure, read_result, read_results, write_result

ROOT = Path(__file__).resolve().parents[1]
WATCHED = (sys.executable, "-m", "benchmarks.sides.watched", "--directory")


def result(*figures: Figure, name: str = "startup", **changes: Any) -> Result:
    values: dict[str, Any] = {
        "schema_version": 1,
        "name": name,
        "question": "How fast?",
        "command": f"python -m benchmarks {name}",
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "modified": False,
        "seconds": 12.5,
        "host": record.Host(
            cpu="Some CPU", cores=2, memory_bytes=24 << 30, system="Linux 6.1", python="3.11.9", load_before=0.25,
            load_after=1.5,
        ),
        "versions": {"torch": "2.11.0", "peft": "0.21.2"},
        "settings": {},
        "checks": {"both sides": "equal"},
        "figures": list(figures),
        "details": {},
    }  # fmt: skip
    return Result(**(values | changes))


# --- committed results and documents ---------------------------------------------------------------------------------


def test_committed_results_have_the_schema() -> None:
    for name, one in read_results().items():
        assert one.name == name
        assert one.name in all_questions()
        assert one.command == f"python -m benchmarks {name}"
        assert re.fullmatch(r"[0-9a-f]{40}", one.commit), name
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", one.date), name
        assert one.host.cpu, name
        assert one.host.cores >= 1, name
        assert {"torch", "peft"} <= one.versions.keys(), name
        assert one.checks, f"{name}: what was compared has to be shown equal"
        assert any(single.limit is not None for single in one.figures), name
        assert len({single.id for single in one.figures}) == len(one.figures), name


def test_the_documents_show_the_committed_results() -> None:
    assert tables.main(["--check"]) == 0, "run: python -m benchmarks.tables"


def test_every_benchmark_has_a_table_in_the_documents() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in ("figures", *all_questions()):
        assert f"<!-- benchmark:{name} -->" in text


# --- figures and files -----------------------------------------------------------------------------------------------


def test_a_figure_is_the_median_of_its_samples() -> None:
    one = figure("help", "help", [0.9, 0.5, 0.7], unit="s", limit=0.7)
    assert (one.value, one.low, one.high, one.samples, one.ok) == (0.7, 0.5, 0.9, 3, True)


@pytest.mark.parametrize(
    ("value", "relation", "limit", "ok"),
    [(1.0, "<=", 1.0, True), (1.01, "<=", 1.0, False), (0.71, ">=", 0.71, True), (0.0, ">", 0.0, False)],
)
def test_limits(value: float, relation: record.Relation, limit: float, ok: bool) -> None:
    assert figure("x", "x", value, limit=limit, relation=relation).ok is ok


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    one = result(figure("help", "`--help`", [0.5, 0.6], unit="s", limit=0.8), figure("size", "size", 3))
    assert write_result(one, tmp_path) == one
    assert read_results(tmp_path) == {"startup": one}


def test_a_note_stays_for_as_long_as_the_limit_is_missed(tmp_path: Path) -> None:
    missed, met = (figure("help", "`--help`", value, unit="s", limit=0.8) for value in (0.9, 0.7))
    write_result(result(replace(missed, note="a slow disk")), tmp_path)
    assert write_result(result(missed), tmp_path).figures[0].note == "a slow disk"
    assert write_result(result(met), tmp_path).figures[0].note == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "startup.json has schema version 2, this code reads 1: measure again"),
        ({"seconds": "12"}, "startup.json is damaged"),
        ({"surplus": 1}, "startup.json is damaged"),
    ],
)
def test_a_damaged_result_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "startup.json"
    path.write_text(json.dumps(asdict(result(figure("a", "a", 1))) | change))
    with pytest.raises(BenchmarkError, match=re.escape(message)):
        read_result(path)


def test_a_result_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "startup.json"
    path.write_text(json.dumps(asdict(result(replace(figure("a", "a", 2, limit=1), ok=True)))))
    with pytest.raises(BenchmarkError, match="startup.json: a: ok contradicts value and limit"):
        read_result(path)


# --- tables ----------------------------------------------------------------------------------------------------------


def test_tables_show_limits_ranges_and_misses() -> None:
    kept = figure("help", "`--help`", [0.5, 0.412, 0.6], unit="s", limit=0.8)
    missed = replace(figure("ratio", "ours | peer", [1.25, 1.5], limit=1), note="slow")
    text = "before\n<!-- benchmark:startup -->\nold\n<!-- /benchmark:startup -->\nafter\n"
    assert tables.filled(text, {"startup": result(kept, missed)}, "README.md") == (
        "before\n<!-- benchmark:startup -->\n"
        "| what | must | measured [range or interval] |  | note |\n"
        "|---|---:|---:|---|---|\n"
        "| `--help` | ≤ 0.8 s | 0.5 s [0.412, 0.6] | met |  |\n"
        "| ours \\| peer | ≤ 1 | 1.38 [1.25, 1.5] | **missed** | slow |\n"
        "\n"
        "`python -m benchmarks startup`: 2026-01-02, commit 0123456789, Some CPU, 2 cores, 24 GiB, load 0.2 before and "
        "1.5 after; Python 3.11.9, torch 2.11.0, peft 0.21.2.\n"
        "\n- checked, both sides: equal\n"
        "<!-- /benchmark:startup -->\nafter\n"
    )


def test_the_table_of_promises_leaves_out_what_has_no_limit() -> None:
    shown = tables.promises({"startup": result(figure("a", "with", 1, limit=2), figure("b", "without", 1))})
    assert "| with | ≤ 2 | 1 | met |  |" in shown
    assert "without" not in shown


def test_the_table_of_fine_tuning() -> None:
    slow = {**_evaluation(), "seconds": 700.0}
    runs = {"nuclei_lora": finetune.collect(slow, _facts(), wall_seconds=800.04)}
    figures = finetune._figures(runs)
    assert {one.id: one.ok for one in figures} == {
        "nuclei_lora_iou": None,
        "nuclei_lora_gain": True,
        "nuclei_lora_seconds": False,
    }
    text = tables.fine_tuning(result(*figures, name="finetune", details={"runs": runs}))
    assert (
        "| nuclei_lora | 0.614 → 0.700 | +0.086 [+0.070, +0.100] | 0.700 → 0.800 | 0.800 → 0.900 | 0.600 → 0.700 "
        "| 4,200,000 (52.5 %) | 16.80 MB | 11.7 min | 1.50 GiB |\n" in text
    )
    assert "nuclei_lora: 42 images, 1860 objects, 500 steps (best 450, validation IoU 0.710)." in text
    assert "- **missed**: nuclei_lora: time of training: 700 s, must be ≤ 600 s\n" in text


def test_the_table_of_the_demo() -> None:
    runs = {"0": _demo_run(seconds=170.2), "1": _demo_run(gain=0.09)}
    text = tables.filled(
        "<!-- benchmark:demo -->\n<!-- /benchmark:demo -->",
        {"demo": result(*demo.figures(runs), name="demo", details={"runs": runs})},
        "docs.md",
    )
    assert (
        "| `python train.py seed=0` | 0.614 → 0.764 | +0.150 [+0.130, +0.170] | 0.600 → 0.700 | 540 s, 500 steps "
        "| 170 s | 2.00 GiB | 0.00 MB |\n" in text
    )
    assert "Test: 42 images, 1860 objects. The first run also draws the images. Adapter 16.80 MB" in text
    assert re.findall(r"\*\*missed\*\*: (.*)", text) == [
        "demo, seed 1: tuned − base test IoU: 0.09 [0.07, 0.11], must be ≥ 0.1",
        "demo, references to elsewhere in report.html: 1 [1, 1], must be ≤ 0",
    ]


def test_markers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="README.md: a benchmark marker has no partner"):
        tables.filled("<!-- benchmark:startup -->\n", {}, "README.md")
    with pytest.raises(
        BenchmarkError,
        match="README.md: no benchmark is called nothing; there are figures, like_for_like, adapter_size",
    ):
        tables.filled("<!-- benchmark:nothing -->\n<!-- /benchmark:nothing -->", {}, "README.md")
    document = tmp_path / "README.md"
    document.write_text("<!-- benchmark:startup -->\n<!-- /benchmark:startup -->\n")
    assert tables.update([document], tmp_path, write=False) == [document]
    assert "measured yet" not in document.read_text()
    assert tables.update([document], tmp_path, write=True) == [document]
    assert "*Not measured yet: `python -m benchmarks startup`.*" in document.read_text()
    assert tables.update([document], tmp_path, write=True) == []


# --- running ---------------------------------------------------------------------------------------------------------


def test_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str) -> int:
        order.append(name)
        return len(order)

    assert take_turns({name: partial(side, name) for name in ("ours", "peer")}, 2) == {"ours": [1, 3], "peer": [2, 4]}
    assert order == ["ours", "peer", "ours", "peer"]


def test_a_failing_command_is_named() -> None:
    with pytest.raises(
        BenchmarkError, match=r"`\S+ -c import sys; sys.exit\('no luck'\)` ended with status 1: no luck"
    ):
        run([sys.executable, "-c", "import sys; sys.exit('no luck')"])


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert re.findall(r"^(\w+)", listed, re.MULTILINE) == list(all_questions())
    assert "finetune         (only by name) " in listed


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["startups"])
    assert (
        "no benchmark startups; there are adapter_size, app, cached_epoch, check_folder, clicks, defaults, demo, "
        "deploy, digests, encode" in capsys.readouterr().err
    )


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*, rehearse: bool) -> Outcome:
        raise BenchmarkError(f"the bases differ, rehearse={rehearse}")

    def succeed(*, rehearse: bool) -> Outcome:
        return Outcome(settings={"rehearse": rehearse}, checks={}, figures=[figure("a", "the answer", 42, limit=43)])

    questions = all_questions()
    monkeypatch.setattr(questions["lora_step"], "measure", fail)
    monkeypatch.setattr(questions["startup"], "measure", succeed)
    assert main(["--rehearse", "lora_step", "startup"]) == 1
    printed = capsys.readouterr()
    assert "lora_step: the bases differ, rehearse=True" in printed.err
    assert "not measured: lora_step" in printed.err
    assert re.search(r"the answer +≤ 43 +42 +met", printed.out)


@pytest.mark.parametrize("name", ["finetune", "zero_shot"])
def test_missing_data_is_named_with_the_remedy(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORA_SAM_DATA", str(tmp_path))
    with pytest.raises(BenchmarkError, match=r"nuclei is not there\. .*\$LORA_SAM_DATA.* docs/data\.md"):
        all_questions()[name].measure(rehearse=True)


@pytest.mark.parametrize("name", ["demo", "encode", "finetune", "zero_shot"])
def test_only_the_packaged_weights_are_measured(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lora_sam.models.checkpoints.PACKAGED", tmp_path / "weights")
    monkeypatch.setenv("LORA_SAM_DATA", str(tmp_path))
    for folder in ("nuclei", "rings"):
        (tmp_path / folder).mkdir()
    with pytest.raises(BenchmarkError, match=r"^weights/nano\.safetensors of lora_sam is not there"):
        all_questions()[name].measure(rehearse=False)


def test_a_command_is_watched(tmp_path: Path) -> None:
    code = "import os, sys; held = b'x' * (200 << 20); sys.exit(print(os.getcwd()))"
    done = run([*WATCHED, str(tmp_path), sys.executable, "-c", code])
    answer = json.loads(done.stdout)
    assert answer["stdout"] == f"{tmp_path}\n"
    assert 200 << 20 < answer["peak_bytes"] < 300 << 20
    assert 0 < answer["seconds"] < 60


def test_a_watched_command_that_fails_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"status 1: no luck$"):
        run([*WATCHED, str(tmp_path), sys.executable, "-c", "import sys; sys.exit('no luck')"])


# --- what is compared ------------------------------------------------------------------------------------------------


def test_the_adapter_of_vit_b_has_the_published_number_of_parameters() -> None:
    assert lora_parameters(depth=12, dim=768, rank=8, targets=2) == 294_912


def test_the_saved_adapter_is_measured() -> None:
    from benchmarks.sides.adapter_size import measure

    side = measure(["model=tiny_random", "method.rank=4"])
    assert side["parameters"] == side["trainable_parameters"] == lora_parameters(depth=2, dim=32, rank=4, targets=2)
    assert side["tensors"] == 2 * 2 * 2
    assert side["difference_after_reading"] == 0
    assert 4 * side["parameters"] < side["bytes"] < 4 * side["parameters"] + 2000


def test_the_peer_of_vit_b_is_the_default_configuration(option: Callable[..., Any]) -> None:
    from transformers import SamConfig

    from lora_sam.models.vit_transformers import config as transformers_config

    found, usual = transformers_config(option("model/vit_b", weights="random").architecture()), SamConfig()
    # the transformer of the decoder has torch's epsilon in the package of SAM
    assert (found.mask_decoder_config.layer_norm_eps, usual.mask_decoder_config.layer_norm_eps) == (1e-5, 1e-6)
    usual.mask_decoder_config.layer_norm_eps = 1e-5
    assert found.to_dict() == usual.to_dict()


def test_the_peer_computes_what_we_compute(option: Callable[..., Any]) -> None:
    import torch

    from benchmarks.hf_sam import hf_masks, hf_model
    from benchmarks.sides.lora_step import example
    from lora_sam.models.decoding import decode_masks
    from lora_sam.training.step import mask_losses

    model = option("model/tiny_random", image_size=96)
    sam = model.build().sam
    peer = hf_model(model, sam)
    one = example(96)
    assert one.boxes is not None
    image, peer_image = (one.image.clone().requires_grad_() for _ in range(2))
    embedding = sam.image_encoder(image.unsqueeze(0))
    logits, iou = decode_masks(sam, embedding, boxes=one.boxes, points=None, labels=None)
    peer_embedding = peer.vision_encoder(peer_image.unsqueeze(0)).last_hidden_state
    peer_logits, peer_iou = hf_masks(peer, peer_image, one.boxes)
    assert embedding.std() > 0.1  # a constant would be easy to agree on
    torch.testing.assert_close(peer_embedding, embedding, atol=1e-4, rtol=0)
    torch.testing.assert_close(peer_logits, logits[:, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(peer_iou, iou[:, 0], atol=1e-4, rtol=0)
    loss = option("loss/sam", resolution="low")
    mask_losses(loss, logits[:, 0], iou[:, 0], one.targets)["loss"].sum().backward()
    mask_losses(loss, peer_logits, peer_iou, one.targets)["loss"].sum().backward()
    assert image.grad is not None
    assert peer_image.grad is not None
    scale = float(image.grad.abs().max())
    assert scale > 0
    torch.testing.assert_close(peer_image.grad, image.grad, atol=1e-3 * scale, rtol=0)


def test_all_sides_of_the_step_begin_alike_and_learn(tmp_path: Path) -> None:
    from benchmarks.sides.lora_step import (
        Conditions,
        late_settings,
        late_step,
        lora_settings,
        our_step,
        peer_step,
        prepare,
        time_steps,
        tutorial_step,
    )

    overrides = ["model=tiny_random", "optim.lr=0.01"]
    settings, given = lora_settings(overrides), Conditions(directory=tmp_path)
    bases = prepare(overrides, given)
    assert max(bases["embedding"], bases["logits"], bases["tutorial"]) < 1e-4
    assert bases["late_loss_cached"] == pytest.approx(bases["late_loss"], abs=1e-4)
    assert 0 < bases["late_gradient"] < 1e-2
    assert bases["row_bytes"] == 4 * 4 * 32 * 2
    lora_step._check_bases(bases)
    sides = {
        "ours": time_steps(lambda: our_step(settings, given), 2),
        "peer": time_steps(lambda: peer_step(settings, given), 2),
        "tutorial": time_steps(lambda: tutorial_step(settings, given), 2),
        "checkpointed": time_steps(lambda: our_step(settings, replace(given, checkpointing="all")), 2),
        "late": time_steps(lambda: late_step(late_settings(overrides), given), 2),
    }
    for name, side in sides.items():
        assert side["losses"][2] < side["losses"][0], name
        assert side["trainable_parameters"] == lora_parameters(
            depth=1 if name == "late" else 2, dim=32, rank=8, targets=2
        )
        assert 0 < side["peak_before"] <= side["peak"]
        assert len(side["seconds"]) == len(side["cpu_seconds"]) == 2
    for name in ("peer", "checkpointed", "late"):
        assert sides[name]["losses"][0] == pytest.approx(sides["ours"]["losses"][0], abs=1e-4)
    assert sides["checkpointed"]["losses"] == pytest.approx(sides["ours"]["losses"], abs=1e-4)
    assert sides["peer"]["attention"] == "sdpa"


def test_the_tutorial_loop_leaves_gradients_that_nobody_uses(option: Callable[..., Any]) -> None:
    from benchmarks.sides import tutorial
    from benchmarks.sides.lora_step import example

    sam = tutorial.fused_sam(option("model/tiny_random"))
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    step, count = tutorial.lora_step(sam, [example(64)] * 2, 4)
    step()
    assert count == lora_parameters(depth=2, dim=32, rank=4, targets=2)
    decoder = dict(sam.mask_decoder.named_parameters())
    assert all(bool((value == before[f"mask_decoder.{name}"]).all()) for name, value in decoder.items())
    assert any(value.grad is not None and bool(value.grad.any()) for value in decoder.values())


def _side(loss: float, *, seconds: float = 2.0, peak: int = 2 << 30, **changes: Any) -> dict[str, Any]:
    values = {
        "precision": "fp32",
        "trainable_parameters": 10,
        "losses": [loss],
        "seconds": [seconds],
        "cpu_seconds": [seconds],
        "before": 1 << 30,
        "peak": peak,
    }
    return values | changes


def _sides(ours: dict[str, Any], auto: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    small = {"seconds": 0.3, "precision": "bf16"}
    return {
        "ours, fp32": [ours],
        "transformers + peft, fp32": [_side(1.0)],
        "ours, default precision": [auto],
        "tutorial loop, fp32": [_side(7.0, seconds=1.2)],
        "ours, default precision, every block checkpointed": [_side(1.0, peak=400 << 20, **small)],
        "ours, default precision, last 3 blocks from the prefix cache": [_side(1.0, **small, trainable_parameters=3)],
    }


def test_ratios_are_ours_to_the_peer() -> None:
    sides = _sides(_side(1.0, seconds=2.5), _side(1.01, seconds=1.0, peak=1 << 30, precision="bf16"))
    checks = lora_step._check_sides(sides)
    assert checks["trainable parameters"] == "10 on every side, 3 in the last blocks"
    figures = {one.id: one for one in lora_step._figures(sides)}
    assert {
        name: (round(figures[name].value, 4), figures[name].ok) for name in figures if figures[name].limit is not None
    } == {
        "time_fp32": (1.25, False),
        "memory_fp32": (1.0, False),
        "time_auto": (0.5, True),
        "memory_auto": (0.5, False),
        "memory_checkpointed": (0.1953, True),
        "speedup_tutorial_fp32": (0.48, False),
        "speedup_peer_fp32": (0.8, False),
        "speedup_tutorial": (1.2, False),
        "speedup_peer": (2.0, True),
        "speedup_late": (3.3333, True),
        "speedup_late_tutorial": (4.0, False),
    }
    assert "(bf16 here)" in figures["time_auto"].what
    assert (figures["default_adds"].value, figures["default_adds"].limit) == (2.5, None)
    assert figures["default_adds_memory"].value == 0.5


def test_memory_is_told_beside_the_peer_and_no_time_of_what_is_emulated() -> None:
    sides = {
        lora_memory.OURS: [_side(1.0, seconds=1.5, peak=1 << 30)],
        lora_memory.PEER: [_side(1.0)],
        lora_memory.CHECKPOINTED: [_side(1.0, peak=768 << 20)],
        lora_memory.HELD: [_side(1.01, peak=512 << 20, precision="bf16", emulated=True)],
    }
    assert lora_memory.check_sides(sides)["bf16"].startswith("emulated")
    figures = {one.id: one for one in lora_memory.figures(sides)}
    held = {name: (one.value, one.ok) for name, one in figures.items() if one.limit is not None}
    assert held == {
        "time_fp32": (0.75, False),
        "memory_fp32": (0.5, True),
        "memory_checkpointed": (0.375, False),
        "memory_held": (0.25, True),
    }
    assert "seconds_checkpointed" in figures
    assert "gib_held" in figures
    assert "seconds_held" not in figures
    with pytest.raises(BenchmarkError, match="not the same step"):
        lora_memory.check_sides({**sides, lora_memory.OURS: [_side(1.01)]})
    with pytest.raises(BenchmarkError, match="trains 11 parameters"):
        lora_memory.check_sides({**sides, lora_memory.OURS: [_side(1.0, trainable_parameters=11)]})


def test_runs_whose_masks_differ_are_no_result() -> None:
    from benchmarks import frozen_masks

    def runs(base: float, exact: float, rounded: float) -> dict[str, Any]:
        tuned = {"fp32": exact, "bf16": rounded}
        return {name: {"base": {"iou": base}, "tuned": {"iou": value}} for name, value in tuned.items()}

    (said,) = frozen_masks.check(runs(0.7, 0.8, 0.8015)).values()
    assert said == "nano on drawn ellipses: IoU of the tuned model 0.8015, with fp32 0.8000, base 0.7000"
    with pytest.raises(BenchmarkError, match="0.002 is allowed"):
        frozen_masks.check(runs(0.7, 0.8, 0.797))
    with pytest.raises(BenchmarkError, match="kept its base"):
        frozen_masks.check(runs(0.7, 0.8, 0.7))


def test_emulated_bf16_is_bf16() -> None:
    import torch

    from benchmarks.emulated import Emulated

    torch.manual_seed(0)
    layer, conv = torch.nn.Linear(64, 48).bfloat16(), torch.nn.Conv2d(3, 8, 3).bfloat16()
    x, image = torch.randn(600, 64).bfloat16().requires_grad_(), torch.randn(1, 3, 9, 9).bfloat16().requires_grad_()

    def go() -> list[torch.Tensor]:
        y, z = torch.bmm(layer(x).view(2, 300, 48), layer(x).view(2, 300, 48).transpose(1, 2)), conv(image)
        return [y, z, *torch.autograd.grad(y.float().mean() + z.float().mean(), [x, image])]

    plain = go()
    with Emulated():
        emulated = go()
    for one, other in zip(emulated, plain, strict=True):
        assert one.dtype == other.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other.float(), rtol=0.03, atol=0.03 * float(other.abs().max()))


@pytest.mark.parametrize("name", ["lora_step", "cached_epoch"])
def test_committed_figures_are_what_the_single_measurements_give(name: str) -> None:
    result = read_results()[name]
    details = result.details
    again = {
        "lora_step": lambda: lora_step._figures(details["sides"]),
        "cached_epoch": lambda: cached_epoch._figures(details["sides"], details["reopened"]),
    }[name]()
    assert [replace(one, note="") for one in result.figures] == again


def test_the_table_of_the_readme_compares_like_with_like() -> None:
    results = read_results()
    heading, rows = like_for_like.table(results)
    assert [row[0] for row in rows] == [row.what for row in like_for_like.ROWS]
    assert len(rows) == 4
    assert all(len(row) == len(heading) for row in rows)
    sides = results["lora_step"].details["sides"]
    ours, peer = (statistics.median(statistics.median(run["seconds"]) for run in sides[name])
                  for name in like_for_like.ROWS[0].sides)  # fmt: skip
    assert rows[0][3].split()[0] == f"{peer / ours:.2f}"
    assert "not measured yet" in like_for_like.table({})[1][0]

    changed = [run | {"precision": "bf16"} for run in sides["ours, fp32"]]
    details = results["lora_step"].details | {"sides": sides | {"ours, fp32": changed}}
    with pytest.raises(
        BenchmarkError, match=r"precision differs \(ours, fp32: bf16, transformers .* not like for like"
    ):
        like_for_like.table({"lora_step": replace(results["lora_step"], details=details)})
    late = [run | {"trainable_parameters": 1} for run in sides["ours, fp32"]]
    details = results["lora_step"].details | {"sides": sides | {"ours, fp32": late}}
    with pytest.raises(BenchmarkError, match="trainable_parameters differs"):
        like_for_like.table({"lora_step": replace(results["lora_step"], details=details)})
    missing = [one for one in results["lora_step"].figures if one.id != "default_adds"]
    with pytest.raises(BenchmarkError, match="no figure default_adds: measure again"):
        like_for_like.table({"lora_step": replace(results["lora_step"], figures=missing)})


BASES = {"embedding": 0.0, "logits": 0.0, "tutorial": 0.0, "late_loss": 1.0, "late_loss_cached": 1.0}


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        (_side(1.002), "ours, fp32 begins with loss 1.002000, the peer with 1.000000: not the same step"),
        (_side(1.0, trainable_parameters=12), "ours, fp32 trains 12 parameters, the peer 10"),
    ],
)
def test_sides_that_compute_something_else_are_not_compared(ours: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=re.escape(message)):
        lora_step._check_sides(_sides(ours, _side(1.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": 2e-3}, "the two bases do not compute the same"),
        ({"tutorial": 2e-3}, "the base of the tutorial loop does not compute the same"),
        ({"late_loss_cached": 1.002}, "the step from the prefix cache is another one"),
    ],
)
def test_bases_that_compute_something_else_are_not_compared(change: dict[str, float], message: str) -> None:
    lora_step._check_bases(BASES)
    with pytest.raises(BenchmarkError, match=message):
        lora_step._check_bases(BASES | change)


# --- the embedding cache ---------------------------------------------------------------------------------------------


def test_epochs_from_the_cache_are_the_same_and_are_all_served(tmp_path: Path) -> None:
    from benchmarks.sides.cached_epoch import cached, compare, decoder_settings, predictor, re_encoding, reopen
    from benchmarks.sides.loader import write

    write(tmp_path / "data", cached_epoch.IMAGES, 1, (96, 96))
    settings = decoder_settings(tmp_path / "data", tmp_path / "cache", ["model=tiny_random"])
    compared, reopened = compare(settings), reopen(settings)
    assert (reopened["encoded"], reopened["remembered"], reopened["forgotten"]) == (2, 0, 0)
    checks = cached_epoch._check(compared, reopened)
    assert "with SamPredictor" in checks["losses in fp32"]
    with pytest.raises(BenchmarkError, match="the sides do not compute the same"):
        cached_epoch._check(compared | {"predictor": [compared["predictor"][0] + 0.01]}, reopened)
    with pytest.raises(BenchmarkError, match="encoded images while it trained"):
        cached_epoch._check(compared | {"hits": [0.0]}, reopened)
    empty = decoder_settings(tmp_path / "data", tmp_path / "empty", ["model=tiny_random"])
    measured = {
        "ours, cached": [cached(empty, 6)],
        "ours, encoding at every step": [re_encoding(empty)],
        "SamPredictor, encoding at every step": [predictor(empty)],
    }
    (one,) = measured["ours, cached"]
    assert one["images"] == 3
    assert one["row_bytes"] == 32 * 4 * 4 * 2
    assert one["hits"] == [[1.0] * 3] * 6
    figures = {figure.id: figure for figure in cached_epoch._figures(measured, reopened)}
    assert (figures["reopened"].value, figures["reopened"].ok) == (0, True)
    assert {name: figure.limit for name, figure in figures.items() if figure.limit is not None} == {
        "epoch_ours": 25,
        "epoch_predictor": 40,
        "epochs_with_build": 8,
        "fetch": 0.02,
        "reopened": 0,
    }


def test_figures_of_cached_epochs() -> None:
    cached = {
        "build_seconds": [3.0, 1.0],
        "step_seconds": [[9.0, 0.1], [0.1, 0.1]],
        "fetch_seconds": [0.001, 0.002, 0.003],
        "row_bytes": 2_000_000,
        "images": 2,
        "precision": "fp32",
    }
    measured = {
        "ours, cached": [cached],
        "ours, encoding at every step": [{"step_seconds": [5.0, 5.0], "precision": "fp32"}],
        "SamPredictor, encoding at every step": [{"step_seconds": [10.0, 8.0], "precision": "fp32"}],
    }
    found = {one.id: one for one in cached_epoch._figures(measured, {"remembered": 0, "forgotten": 1})}
    assert found["epoch_ours"].value == pytest.approx(10 / 0.2)
    assert found["epoch_predictor"].value == pytest.approx(18 / 0.2)
    assert found["epochs_with_build"].value == pytest.approx(cached_epoch.EPOCHS * 10 / (4 + 9.3))
    assert (found["fetch"].value, found["fetch"].ok) == (pytest.approx(0.02), True)
    assert (found["reopened"].value, found["reopened"].ok) == (1, False)
    assert found["row_mb"].value == 2


def test_a_sweep_is_gathered_from_its_trials(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"status": "completed", "seconds": 12.5, "error": null}')
    (tmp_path / "evaluation.json").write_text('{"seconds": 3.5, "tuned": {"iou": 0.5}}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "validation_iou": 0.25}\n{"step": 1, "loss": 2.0}\n')
    trial = sweep.collect(tmp_path)
    assert trial == {"seconds": 12.5, "training_seconds": 3.5, "tuned_iou": 0.5, "validation_iou": [0.25]}
    other = trial | {"validation_iou": [0.2502]}
    with pytest.raises(BenchmarkError, match=r"validation IoU differs by 2\.00e-04, test IoU by 0\.00e\+00"):
        sweep.check_same({"cached": {"trials": [trial]}, "uncached": {"trials": [other]}})
    assert "differ by 0.0e+00" in sweep.check_same({"cached": {"trials": [trial]}, "uncached": {"trials": [trial]}})
    cached = {"seconds": 40.0, "trials": [trial | {"seconds": 20.0}, trial, trial]}
    uncached = {"seconds": 400.0, "trials": [trial | {"seconds": 375.0, "training_seconds": 350.0}]}
    found = {one.id: one for one in sweep.figures({"cached": cached, "uncached": uncached}, 4_000_000)}
    assert (found["commands"].value, found["commands"].limit, found["commands"].ok) == (30, 25, True)
    assert found["trials"].value == pytest.approx(3 * 375 / 45)
    assert found["steps"].value == pytest.approx(3 * 350 / 10.5)
    assert (found["seconds_build"].value, found["cache_mb"].value) == (7.5, 4)
    (tmp_path / "evaluation.json").write_text('{"seconds": 0.0, "tuned": {"iou": 0.5}}')
    with pytest.raises(BenchmarkError, match="a trial of the sweep took no step"):
        sweep.collect(tmp_path)
    (tmp_path / "status.json").write_text('{"status": "failed", "seconds": 1, "error": "no luck"}')
    with pytest.raises(BenchmarkError, match="a trial of the sweep failed: no luck"):
        sweep.collect(tmp_path)


def test_the_checkpoint_of_a_sweep_holds_the_drawn_weights(tmp_path: Path, option: Callable[..., Any]) -> None:
    from benchmarks.sides.sweep import write_weights

    write_weights(tmp_path / "weights.safetensors", ["model=tiny_random"])
    drawn = option("model/tiny_random").build().sam.state_dict()
    read = option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "weights.safetensors")).build()
    assert all(bool((value == drawn[name]).all()) for name, value in read.sam.state_dict().items())


def test_late_blocks_cost_points_and_save_time() -> None:
    def one(iou: float, seconds: float) -> dict[str, Any]:
        run = finetune.collect(_evaluation() | {"seconds": seconds}, _facts(), wall_seconds=seconds + 60)
        run["per_image"] = [[count, base, iou + 0.1 * place] for place, (count, base, _) in enumerate(run["per_image"])]
        return run | {"cache_bytes": 2_000_000}

    runs = {
        name: combined({seed: one(iou + 0.01 * seed * (name == "late"), seconds) for seed in range(3)})
        for name, iou, seconds in (("all", 0.7, 300.0), ("late", 0.679, 100.0))
    }
    found = {one.id: one for one in late_blocks.figures(runs)}
    assert (found["points"].value, found["points"].ok) == (pytest.approx(-1.1), False)
    assert (found["time"].value, found["cache_late"].value) == (3, 2)
    low, high = found["points"].low, found["points"].high
    assert low is not None
    assert high is not None
    # of three seeds with -2.1, -1.1 and -0.1, whose images are all alike: 4.3 standard errors of their mean
    assert (low, high) == (pytest.approx(-1.1 - 4.3 / 3**0.5, abs=0.05), pytest.approx(-1.1 + 4.3 / 3**0.5, abs=0.05))
    assert "42 images" in late_blocks.check_base(runs)
    with pytest.raises(BenchmarkError, match="the base was measured differently"):
        late_blocks.check_base(runs | {"late": combined({0: one(0.7, 1.0) | {"objects": 1}})})


def test_several_seeds_are_one_entry_with_intervals_over_seeds_and_images() -> None:
    def run(seed: int) -> dict[str, Any]:
        found = finetune.collect(_evaluation() | {"seconds": 100.0 + seed}, _facts(), wall_seconds=1)
        found["per_image"] = [[count, base, tuned + 0.05 * seed] for count, base, tuned in found["per_image"]]
        return found

    alone, several = combined({0: run(0)}), combined({seed: run(seed) for seed in range(3)})
    gain = (900 * 0.08 + 700 * 0.1 + 260 * 0.07) / 1860
    assert alone["delta"]["iou"] == pytest.approx(gain)
    assert several["delta"]["iou"] == pytest.approx(gain + 0.05)
    widths = [one["delta"]["iou_interval"][1] - one["delta"]["iou_interval"][0] for one in (alone, several)]
    assert 0 < widths[0] < 0.5 * widths[1]
    assert several["seconds"] == 101
    assert several["base"] == {name: pytest.approx(value) for name, value in alone["base"].items()}
    assert list(several["seeds"]) == ["0", "1", "2"]
    figures = {one.id: one for one in finetune._figures({"nuclei_lora": several})}
    assert figures["nuclei_lora_gain"].value == several["delta"]["iou_interval"][0]
    shown = result(*figures.values(), name="finetune", details={"runs": {"nuclei_lora": several}})
    assert "(best 450, validation IoU 0.710), means of 3 seeds, intervals over seeds and images." in (
        tables.fine_tuning(shown)
    )


def test_the_gpu_benchmark_runs_on_a_cpu_when_rehearsed(tmp_path: Path) -> None:
    from benchmarks.settings import settings_for
    from benchmarks.sides.gpu import card, compare, known_peak, time_encodings
    from benchmarks.sides.lora_step import Conditions, lora_settings, our_step, peer_step, prepare, time_steps

    assert (known_peak("NVIDIA H200"), known_peak("NVIDIA A100-SXM4-80GB")) == (989, 312)
    assert (known_peak("NVIDIA H100 PCIe"), known_peak("NVIDIA A1000")) == (756, None)
    overrides = ["model=tiny_random"]
    settings = settings_for(*overrides)
    given = Conditions(directory=tmp_path, precision="bf16", batch_size=2)
    lora = lora_settings(overrides)
    bases = prepare(overrides, given)
    ours, peer = (time_steps(lambda start=start: start(lora, given), 1) for start in (our_step, peer_step))
    assert ours["precision"] == peer["precision"] == "bf16"
    side = {"batch_size": 2}
    one = {
        "card": card(settings, "cpu"),
        "embeddings": compare(settings, "cpu"),
        "bases": bases,
        "encode": {name: [time_encodings(settings, name, "cpu", 2, 1)] for name in gpu.ENCODERS},
        "step": {"ours": [ours | side], "peer": [peer | side], "tutorial": [ours | side]},
    }
    assert one["card"]["encode_tflop"] > 0
    assert one["embeddings"]["ours_fp32"] < 1e-4 < one["embeddings"]["ours_bf16"]
    checks = gpu.check(one)
    assert checks["batches"].startswith("ours_bf16 2, ")
    found = {figure.id: figure for figure in gpu.figures("tiny_random", one, 0.2)}
    assert {name: figure.limit for name, figure in found.items() if figure.limit is not None} == {
        "tiny_random_encode_eager": 5,
        "tiny_random_encode_hf": 1.3,
        "tiny_random_share": 0.2,
        "tiny_random_step_tutorial": 4,
        "tiny_random_step_tutorial_memory": 0.35,
        "tiny_random_step_peer": 1.3,
        "tiny_random_step_peer_memory": 0.5,
    }
    assert found["tiny_random_step_tutorial"].value == 1
    one["embeddings"]["hf_bf16"] = 1e3
    with pytest.raises(BenchmarkError, match="hf_bf16 and segment_anything in fp32 do not compute the same"):
        gpu.check(one)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    def side(batch: int) -> dict[str, Any]:
        if batch > 2:
            raise BenchmarkError("`python` ended with status 1: torch.OutOfMemoryError: CUDA out of memory.")
        return {"seconds": [batch]}

    assert gpu.fitting(side, 8) == {"seconds": [2], "batch_size": 2}

    def fail(_: int) -> dict[str, Any]:
        raise BenchmarkError("no luck")

    with pytest.raises(BenchmarkError, match="no luck"):
        gpu.fitting(fail, 8)


def test_without_a_gpu_the_gpu_benchmark_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BenchmarkError, match="there is no CUDA device here"):
        gpu.measure(rehearse=False)


def test_a_profile_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.profile_step import main as profile

    assert profile(["decoder", "--rehearse"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("decoder step, model=tiny_random")
    assert "aten::addmm" in shown


# --- the packaged weights and the demo -------------------------------------------------------------------------------


def test_the_encoders_that_are_timed_compute_the_same() -> None:
    from benchmarks.settings import settings_for
    from benchmarks.sides.encode import compare, time_encodings

    settings = settings_for("model=tiny_random")
    compared = compare(settings)
    assert compared["shape"] == [1, 32, 4, 4]
    assert compared["largest"] > 0.1
    assert 1e-4 < compared["bf16"] < 0.1  # so it was indeed computed in bf16
    checks = encode.check_same(compared)
    assert checks["weights"] == f"random, {compared['encoder_parameters']:,} parameters in the encoder"
    with pytest.raises(BenchmarkError, match=r"differ by 1\.00e-02, 1\.00e-03 is allowed"):
        encode.check_same(compared | {"peer": 0.01, "largest": 1.0})
    measured = {side: [time_encodings(settings, side, 3)] * 2 for side in ("fp32", "bf16", "peer")}
    figures = {one.id: one for one in encode.figures(measured)}
    assert [one.samples for one in figures.values()] == [6, 6, 6, 6]
    assert figures["fp32"].value == pytest.approx(1e3 * sorted(measured["fp32"][0]["seconds"])[1])
    assert figures["embed"].value == pytest.approx(1e3 * sorted(measured["fp32"][0]["embed_seconds"])[1])
    assert [name for name, one in figures.items() if one.limit is not None] == ["fp32"]


def test_boxes_points_and_the_three_masks_are_scored(option: Callable[..., Any], blobs: Path) -> None:
    from benchmarks.sides.zero_shot import POINT, figures_of, score_three, scores_of
    from lora_sam.evaluation.metrics import score_image
    from lora_sam.predictors.torch_predictor import TorchPredictor

    base = option("model/tiny_random").build()
    predictor = TorchPredictor(base.sam, base.image_size)
    test = option("data/coco", root=str(blobs)).open(0).test
    scored = scores_of(predictor, (test[index] for index in range(len(test))), points=True)
    assert predictor.embedder.encoded == len(test) == 3
    for index, sample in enumerate(test[index] for index in range(len(test))):
        prompts = POINT.evaluation_prompts(sample, 0)
        chosen = predictor.predict(sample.image, prompts, multimask=True)
        expected = score_image(sample.id, sample.object_ids, chosen.masks, sample.masks)
        assert scored["multimask"][index].iou.tolist() == expected.iou.tolist()
        assert scored["multimask"][index].boundary_f1.tolist() == expected.boundary_f1.tolist()
        three, predicted = score_three(predictor, sample, prompts)
        assert predicted.max(axis=1).tolist() == chosen.scores.tolist()
        assert scored["oracle"][index].iou.tolist() == np.max([one.iou for one in three], axis=0).tolist()
    found = figures_of(scored)
    assert (found["images"], found["objects"]) == (3, 9)
    assert found["oracle"]["iou"] >= found["multimask"]["iou"]


def test_of_several_scores_one_is_picked_per_object() -> None:
    from benchmarks.sides.zero_shot import pick
    from lora_sam.evaluation.metrics import score_image

    truth = np.zeros((2, 4, 4), bool)
    truth[:, :2] = True
    exact, empty = (score_image("a", ("1", "2"), masks, truth) for masks in (truth, np.zeros_like(truth)))
    picked = pick([exact, empty], np.array([1, 0]))
    assert (picked.iou.tolist(), picked.false_negative.tolist(), picked.area.tolist()) == ([0, 1], [8, 0], [8, 8])


def test_zero_shot_figures_have_the_promised_limits() -> None:
    def scores(iou: float) -> dict[str, Any]:
        return {"iou": iou, "iou_interval": [iou - 0.01, iou + 0.01]}

    counts = {"images": 42, "objects": 1860}
    nuclei = counts | {name: scores(0.45) for name in ("box", "point", "multimask", "oracle")}
    sets = {"nuclei_test": nuclei, "rings_test": counts | {"box": scores(0.6)}, "rings_all": {"box": scores(0.5)}}
    found = {one.id: one for one in zero_shot.figures(sets, 15_510_648)}
    assert {name: (one.limit, one.ok) for name, one in found.items() if one.limit is not None} == {
        "nuclei_test_box": (0.71, False),
        "nuclei_test_point": (0.60, False),
        "rings_test_box": (0.55, True),
        "rings_all_box": (0.5, True),
        "file": (20, True),
    }
    assert (found["nuclei_test_oracle"].low, found["nuclei_test_oracle"].high) == pytest.approx((0.44, 0.46))
    assert tables.measured(found["file"]) == "15.5 MB"
    assert zero_shot.described({"nuclei_test": counts}) == "nuclei_test 42 images, 1,860 objects"


def test_what_a_user_sees_has_the_promised_limits() -> None:
    corrections = {
        "clicks": [0.6, 0.6, 0.66, 0.6, 0.68, 0.6, 0.6, 0.71],
        "worse": 0.2,
        "box": 0.7,
        "box_corrected": 0.71,
    }
    measured = {
        "corrections": corrections,
        "calibration": {name: {"error": 0.06, "bias": -0.05} for name in ("box", "point", "best")},
        "automatic": {"ap": 0.3, "recall": 0.4, "precision": 0.5},
        "automatic_demo": {"ap": 0.3, "recall": 0.3, "precision": 0.5},
    }
    found = {one.id: one for one in zero_shot.useful_figures(measured)}
    assert found["correction"].value == pytest.approx(0.01)
    assert {name: one.ok for name, one in found.items() if one.limit is not None} == {
        "clicks_3": True,
        "clicks_5": False,
        "clicks_8": True,
        "worse": False,
        "correction": True,
        "calibration_box": False,
        "calibration_point": True,
        "automatic_ap": True,
        "demo_recall": False,
        "demo_precision": True,
    }
    assert found["bias_box"].value == -0.05


class _Scripted:
    """Answers a box with the box, and anything with a mask prompt with the true mask, or with nothing."""

    def __init__(self, sample: Any, *, helpful: bool) -> None:
        self.sample, self.helpful = sample, helpful

    def predict(self, image: Any, prompts: Any, **_: Any) -> Any:
        from lora_sam.core.structures import Masks

        rows = [
            int(np.flatnonzero([mask[int(y), int(x)] for mask in self.sample.masks])[0]) for x, y in self.at(prompts)
        ]
        masks = self.sample.masks[rows].copy()
        if prompts.mask_inputs is None:
            masks[:, ::2] = False
        elif not self.helpful:
            masks[:] = False
        return Masks(masks, np.full(len(rows), 0.75, np.float32), np.zeros((len(rows), 4, 4), np.float32))

    def at(self, prompts: Any) -> list[tuple[float, float]]:
        if prompts.boxes is None:
            return [(x, y) for x, y in prompts.points[:, 0]]
        return [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in prompts.boxes]

    def predict_all(self, image: Any, prompts: Any, **options: Any) -> Any:
        from lora_sam.core.predictor import AllMasks

        found = self.predict(image, prompts)
        logits = np.where(found.masks, 1.0, -1.0).astype(np.float32)[:, None].repeat(4, 1)
        return AllMasks(
            logits, np.full((len(logits), 4), 0.75, np.float32), np.zeros((len(logits), 4, 4, 4), np.float32)
        )


def test_corrections_and_calibration_of_a_model_that_is_known() -> None:
    from benchmarks.usefulness import calibration_of, corrections_of
    from lora_sam.core.structures import Sample

    masks = np.zeros((2, 40, 60), np.bool_)
    masks[0, 4:20, 4:20] = masks[1, 10:30, 30:50] = True
    sample = Sample("a.png", np.zeros((40, 60, 3), np.uint8), masks, ("1", "2"))
    helped = corrections_of(_Scripted(sample, helpful=True), [sample])
    assert helped["objects"] == 2
    assert helped["clicks"] == pytest.approx([0.5, *[1.0] * 7])
    assert (helped["worse"], helped["box"], helped["box_corrected"]) == pytest.approx((0.0, 0.5, 1.0))
    hurt = corrections_of(_Scripted(sample, helpful=False), [sample])
    assert (hurt["worse"], hurt["box_corrected"], hurt["clicks"][-1]) == pytest.approx((1.0, 0.0, 0.0))
    found = calibration_of(_Scripted(sample, helpful=True), [sample])
    assert set(found) == {"box", "point", "best"}
    assert all(one == pytest.approx({"error": 0.25, "bias": 0.25}) for one in found.values())


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<img src="data:image/png;base64,AA"><a href="#top">up</a><link rel="icon" href="data:,">', []),
        ("<pre>https://example.org/x.js and url(y.png)</pre><svg xmlns='http://www.w3.org/2000/svg'></svg>", []),
        ("<script src=//cdn.example.org/x.js></script>", ["//cdn.example.org/x.js"]),
        (
            '<a href="https://example.org">more</a><img src="overlays/a.png"/>',
            ["https://example.org", "overlays/a.png"],
        ),
        ("<style>@import 'a.css'; p { background: url( \"b.png\" ) url(data:,) }</style>", ["a.css", "b.png"]),
        ('<p style="background: url(c.png)">', ["c.png"]),
    ],
)
def test_references_to_elsewhere_are_found(page: str, found: list[str]) -> None:
    assert demo.external_references(page) == found


def test_demo_figures_take_the_worst_run_and_the_first_time() -> None:
    runs = {"0": _demo_run(seconds=181, page="<p>"), "1": _demo_run(seconds=90, peak=4 << 30, page="x" * 6_000_000)}
    figures = {one.id: one for one in demo.figures(runs)}
    assert {name: (one.value, one.ok) for name, one in figures.items()} == {
        "gain_0": (0.15, True),
        "gain_1": (0.15, True),
        "first_seconds": (181, False),
        "memory": (4, False),
        "report": (6, False),
        "references": (0, True),
    }
    checks = demo.check_runs({"0": _demo_run()})
    assert checks["base"] == "test IoU 0.6140 on 42 images, 1860 objects with every seed"
    assert checks["peak memory"].startswith("2.00 GiB of the process (ru_maxrss), 1.50 GiB in evaluation.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": 9}, "the base was measured differently (IoU, images, objects): [(0.614, 42, 9), (0.614, 42, 18"),
        ({"peak_memory_bytes": 1 << 30}, "seed 1 reports a peak of 1,610,612,736 bytes, its process held 1,073,741"),
    ],
)
def test_demo_runs_that_contradict_each_other_are_no_result(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=re.escape(message)):
        demo.check_runs({"0": _demo_run(), "1": _demo_run() | change})


def _demo_run(
    *, gain: float = 0.15, seconds: float = 100, peak: int = 2 << 30, page: str = '<img src="x.png">'
) -> dict[str, Any]:
    evaluation = _evaluation()
    evaluation["tuned"]["iou"] = evaluation["base"]["iou"] + gain
    evaluation["delta"] |= {"iou": gain, "iou_interval": [gain - 0.02, gain + 0.02]}
    return demo.collect(evaluation, _facts(), page, {"seconds": seconds, "peak_bytes": peak})


def _evaluation() -> dict[str, Any]:
    base = {"iou": 0.614, "dice": 0.7, "f1": 0.8, "boundary_f1": 0.6}
    return {
        "base": base,
        "tuned": {"iou": 0.7, "iou_interval": [0.68, 0.72], "dice": 0.8, "f1": 0.9, "boundary_f1": 0.7},
        "delta": {"iou": 0.086, "iou_interval": [0.07, 0.1], "dice": 0.1, "f1": 0.1, "boundary_f1": 0.1},
        "trainable_parameters": 4_200_000,
        "total_parameters": 8_000_000,
        "adapter_bytes": 16_800_000,
        "seconds": 540.0,
        "peak_memory_bytes": 3 << 29,
        "images": 42,
        "objects": 1860,
        "split": "test",
        "seed": 0,
        "per_image": [
            {"id": f"{image}.png", "objects": objects, "base_iou": iou, "tuned_iou": iou + gain}
            for image, (objects, iou, gain) in enumerate([(900, 0.6, 0.08), (700, 0.63, 0.1), (260, 0.6, 0.07)])
        ],
    }


def _facts() -> dict[str, Any]:
    return {
        "method": {"name": "lora", "rank": 8},
        "steps": 500,
        "best_step": 450,
        "validation_iou": 0.71,
        "base": {"sha256": "00"},
    }
