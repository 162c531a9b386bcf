"""Runs the tests of every family of models and writes what passed into the table of docs/models.md.

`python scripts/family_matrix.py` prints the table, `--write` puts it into the page, and `--junit FILE` takes the
results of a run of pytest that was already made with `--junitxml`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree  # nosec: read is what pytest has just written
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
MARKS = "<!-- families -->", "<!-- /families -->"
VARIANTS = {
    "vit": "tiny_random",
    "tiny_vit": "tiny_vit_random",
    "sam2": "sam2_random",
    "sam3": "sam3_random",
    "sam_hq": "sam_hq_random",
}
"""The drawn weights of each family that tests run with."""

FILES = (
    "tests/models/test_families.py",
    "tests/models/test_families_in_use.py",
    "tests/training/test_families.py",
    "tests/integration/test_families.py",
)
"""Where a test runs for several families, whose name is part of its id."""


@dataclass(frozen=True)
class Check:
    """A row.

    Attributes:
        said: What is checked.
        test: Name of the test in `FILES`.
        elsewhere: By family, `file::test` where another test checks it.
        cannot: By family, why it cannot; a test sees to it that it is refused so.
    """

    said: str
    test: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)


def _vit(test: str) -> Mapping[str, str]:
    return {"vit": f"tests/{test}"}


CHECKS = (
    Check("nothing changes before the first step", "test_identity_at_the_start"),
    Check("split and fused again, the same bits", "test_split_and_fuse_give_the_same_bits"),
    Check("stock PEFT saves and loads it", "test_stock_peft_saves_and_loads_it"),
    Check("a gradient reaches every weight that trains", "test_a_gradient_reaches_every_weight_that_trains"),
    Check("the loss falls on two images", "test_the_loss_falls_on_two_images_and_what_is_frozen_stays_as_it_was"),
    Check(
        "what is frozen stays, statistics too", "test_the_loss_falls_on_two_images_and_what_is_frozen_stays_as_it_was"
    ),
    Check("merged to 1e-4, loaded strictly upstream", "test_merged_weights_load_strictly_where_they_came_from"),
    Check("cached blocks give the same gradients", "test_a_cached_stage_gives_the_gradients_of_the_whole"),
    Check("a decoder learns the same from the cache", "test_a_decoder_learns_the_same_from_cached_embeddings"),
    Check("every stage and the rest are the whole", "test_every_stage_and_what_follows_are_the_whole_encoder"),
    Check("the plan counts what there is", "test_the_plan_knows_the_blocks_that_there_are"),
    Check("files of its upstream package are read", "test_a_file_of_its_upstream_package_is_read"),
    Check(
        "maps and masks are those of transformers",
        "test_maps_and_masks_are_those_of_transformers",
        {
            "vit": "tests/deployment/test_transformers_layout.py::test_the_same_answers",
            "sam2": "tests/models/test_sam2.py::test_maps_and_masks_are_those_of_transformers",
            "sam3": "tests/models/test_sam3.py::test_maps_and_masks_are_those_of_transformers",
            "sam_hq": "tests/models/test_sam_hq.py::test_masks_are_those_of_transformers_but_for_one_line_of_it",
        },
        {"tiny_vit": "transformers has no SAM with a TinyViT"},
    ),
    Check(
        "merge with `format=transformers`",
        "test_merged_for_transformers_is_the_same_model",
        _vit("cli/test_merge.py::test_the_layout_of_transformers"),
        {
            "tiny_vit": "transformers has no SAM with a TinyViT",
            "sam_hq": "SamHQModel of transformers makes masks of an image that its attention has not changed",
        },
    ),
    Check(
        "pixels and prompts go in and back as upstream",
        "test_preprocess_equals_segment_anything",
        {
            "vit": "tests/data/test_transforms.py::test_preprocess_equals_segment_anything",
            "tiny_vit": "tests/data/test_transforms.py::test_preprocess_equals_segment_anything",
            "sam_hq": "tests/data/test_transforms.py::test_preprocess_equals_segment_anything",
            "sam2": "tests/data/test_square_frame.py::test_images_and_prompts_are_those_of_the_processor",
            "sam3": "tests/models/test_sam3.py::test_images_prompts_and_masks_go_as_upstream",
        },
    ),
    Check(
        "a run that was stopped goes on, same bits",
        "test_a_run_that_was_stopped_ends_with_the_same_bits",
        _vit("training/test_loop.py::test_a_run_stopped_anywhere_ends_with_the_same_weights"),
    ),
    Check(
        "OpenVINO FP32, any prompts, IoU ≥ 0.999",
        "test_exported_parts_compute_what_torch_computes",
        _vit("deployment/test_ir_parts.py::test_equals_torch"),
    ),
    Check(
        "INT8 stays close",
        "test_int8_stays_close",
        _vit("cli/test_quantize.py::test_masks_stay_close_and_the_manifest_tells_what_was_lost"),
    ),
    Check(
        "export with `format=onnx`",
        "test_onnx_parts_compute_what_torch_computes",
        _vit("cli/test_export.py::test_onnx"),
    ),
    Check(
        "OpenVINO Model API opens both parts",
        "test_model_api_opens_both_parts",
        _vit("deployment/test_ir_parts.py::test_openvino_model_api_loads_both_parts"),
        dict.fromkeys(("sam2", "sam3"), "Model API scales prompts by the longer side"),
    ),
    Check("prompts of all kinds, on several images, all masks", "test_prompts_of_all_kinds_give_all_masks"),
    Check("a file of another family names its `model=`", "test_a_file_of_another_family_names_the_model_that_takes_it"),
    Check("switched off it is the base, strength 0 to 1", "test_switched_off_it_is_the_base_and_strength_goes_between"),
    Check("bf16 stays near fp32", "test_bf16_stays_near"),
    Check("weights fit another input size", "test_weights_fit_another_input_size"),
    Check("a class head tells the same exported", "test_classes_are_told_alike_where_they_are_exported"),
    Check(
        "memory of the plan, 15 and 25 % of what is kept",
        "test_what_autograd_keeps",
        {name: "tests/training/planning/test_memory.py::test_what_autograd_keeps" for name in VARIANTS},
    ),
    Check(
        "masks without prompts",
        "test_masks_without_prompts",
        _vit("predictors/test_automatic.py::test_equals_the_generator_of_segment_anything"),
    ),
    Check(
        "the app shows base and tuned",
        "test_the_app_shows_base_and_tuned",
        _vit("app/test_workbench.py::test_both_masks_are_those_of_the_predictors"),
    ),
    Check(
        "the predict command",
        "test_the_predict_command_finds_what_the_library_finds",
        _vit("cli/test_predict.py::test_the_masks_are_those_of_the_library"),
    ),
)


@dataclass
class Count:
    """Cases of a test."""

    passed: int = 0
    failed: int = 0


def results(*junits: Path) -> dict[tuple[str, str, str], Count]:
    """Cases by file, test and family; the family is empty where the id names none."""
    counts: dict[tuple[str, str, str], Count] = {}
    for case in (case for junit in junits for case in ElementTree.parse(junit).getroot().iter("testcase")):
        name, _, id_ = case.attrib["name"].partition("[")
        file = case.attrib["classname"].replace(".", "/") + ".py"
        count = counts.setdefault((file, name, _family(id_)), Count())
        bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
        count.failed += bad
        count.passed += not bad
    return counts


def _family(id_: str) -> str:
    words = re.split(r"[-\]]", id_)
    named = [family for word in words for family in VARIANTS if word == family or word in _variants()[family]]
    return named[0] if named else ""


@cache
def _variants() -> dict[str, set[str]]:
    """The files of `conf/model/` by family; one with the encoder of another counts to the one it is named after."""
    found: dict[str, set[str]] = {family: set() for family in VARIANTS}
    for file in (ROOT / "conf" / "model").glob("*.yaml"):
        target = re.search(r"^_target_: lora_sam\.models\.(\w+)\.", file.read_text(encoding="utf-8"), re.MULTILINE)
        if target and target[1] in found:
            found[target[1]].add(file.stem)
    return found


def cell(check: Check, family: str, counts: Mapping[tuple[str, str, str], Count]) -> str:
    """What the table says of a check and a family: `✓` and how many cases passed, `✗`, or why it cannot."""
    if family in check.cannot:
        return f"cannot: {check.cannot[family]}"
    found = Count()
    elsewhere = check.elsewhere.get(family)
    for (file, test, named), count in counts.items():
        here = file in FILES and test == check.test and named == family
        if here if elsewhere is None else f"{file}::{test}" == elsewhere and named in ("", family):
            found.passed += count.passed
            found.failed += count.failed
    return f"✓ {found.passed}" if found.passed and not found.failed else "✗"


def table(counts: Mapping[tuple[str, str, str], Count]) -> list[str]:
    """The lines of the table."""
    lines = [f"| check | {' | '.join(VARIANTS)} |", "|---" * (1 + len(VARIANTS)) + "|"]
    for check in CHECKS:
        lines.append(f"| {check.said} | {' | '.join(cell(check, family, counts) for family in VARIANTS)} |")
    return lines


def commands() -> list[str]:
    """What pytest is to run."""
    others = {test for check in CHECKS for test in check.elsewhere.values()}
    return [*FILES, *sorted(test for test in others if not test.startswith(FILES))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 1 where a check failed or did not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    parser.add_argument(
        "--junit", type=Path, nargs="+", help="results of pytest, in one file or several, instead of a run"
    )
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        junits = given.junit or [Path(directory) / "results.xml"]
        if given.junit is None:
            to = f"--junitxml={junits[0]}"
            words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", to, *commands()]
            subprocess.run(words, cwd=ROOT, check=False)
        lines = table(results(*junits))
    print("\n".join(lines))
    bad = any("✗" in line for line in lines)
    if given.write and not bad:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        PAGE.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]), encoding="utf-8")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
