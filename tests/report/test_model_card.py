"""The model card: its snippet runs, its front matter is YAML, and no name in it can become Markdown or HTML."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from lora_sam.models.projections import fuse_projections
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.report.model_card import model_card

FACTS: dict[str, Any] = {
    "architecture": {"variant": "vit_b"},
    "base": {"source": "sam_vit_b_01ec64.pth", "sha256": "ec2df6" + "0" * 58},
    "image_size": 1024,
    "method": {"name": "lora", "rank": 8, "targets": ["q", "v"], "blocks": "all", "dropout": 0.0, "dora": False},
    "versions": {"lora_sam": "0.1.0"},
}
TABLE = "| | base | tuned |\n|---|---|---|\n| IoU | 0.61 | 0.72 |"


def front_matter(card: str) -> Any:
    """What lies between the two first lines of three dashes."""
    start, header, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(header)


def test_front_matter_is_what_model_hubs_read() -> None:
    assert front_matter(model_card(FACTS, TABLE)) == {
        "library_name": "peft",
        "tags": ["segment-anything", "image-segmentation", "lora_sam"],
        "pipeline_tag": "mask-generation",
    }


def test_the_card_says_what_images_were_cut_into() -> None:
    assert "input 1024 px.\n" in model_card(FACTS, None)
    assert "input 1024 px. Trained on tiles of 256 px:" in model_card({**FACTS, "training_tile": 256}, None)


def test_the_card_says_what_binds_whoever_takes_the_adapter() -> None:
    facts = copy.deepcopy(FACTS)
    assert "licen" not in model_card(facts, None).lower()
    facts["architecture"]["family"] = "sam3"
    card = model_card(facts, None)
    assert card.split("---")[1].strip().endswith("license: other")
    assert "\n## Licence\n\nThe weights of SAM 3 are Meta's, under the SAM License: not an open-source licence;" in card


def test_the_card_says_the_method_as_it_was_typed() -> None:
    facts = copy.deepcopy(FACTS)
    facts["method"]["option"] = "lora_all"
    card = model_card(facts, None)
    assert "with `method=lora_all`.\n" in card
    assert "| option |" not in card


def test_the_card_says_what_the_adapter_is() -> None:
    card = model_card(FACTS, TABLE)
    assert "# Fine-tuned Segment Anything: vit_b\n" in card
    assert "made by lora_sam 0.1.0 with `method=lora`.\n" in card
    assert f"Variant vit_b from `sam_vit_b_01ec64.pth`, SHA-256 `ec2df6{'0' * 58}`, input 1024 px.\n" in card
    assert f"\n\n{TABLE}\n\n" in card
    settings = re.findall(r"^\| (\w+) \| (.*) \|$", card.partition("## Settings")[2], re.MULTILINE)
    assert settings == [
        ("setting", "value"),
        ("blocks", '"all"'),
        ("dora", "false"),
        ("dropout", "0.0"),
        ("rank", "8"),
        ("targets", '\\["q", "v"\\]'),
    ]
    assert "Not evaluated yet." not in card
    assert "\n\nNot evaluated yet.\n\n" in model_card(FACTS, None)


HOSTILE = (
    "<script>alert(1)</script>",
    "a\n---\nlibrary_name: evil\n---\n# b",
    "a | b\\| c |",
    "``` `code` ```\n```python\nimport os\n```",
    "![x](http://example.org) [y](javascript:z) **bold**",
    "a\u2028b\r\nc\x0bd",
    "&lt;b&gt;",
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["variant", "source", "sha256", "method", "key", "value", "version"])
def test_hostile_strings_stay_text(text: str, place: str) -> None:
    facts = copy.deepcopy(FACTS)
    if place == "variant":
        facts["architecture"]["variant"] = text
    elif place in ("source", "sha256"):
        facts["base"][place] = text
    elif place == "method":
        facts["method"]["name"] = text
    elif place == "key":
        facts["method"][text] = 1
    elif place == "value":
        facts["method"]["blocks"] = [text]
    else:
        facts["versions"]["lora_sam"] = text
    usual, card = model_card(FACTS, TABLE), model_card(facts, TABLE)
    assert front_matter(card) == front_matter(usual)
    # no line was added but the row of a new key, and no line means something else than before
    lines = card.splitlines()
    assert len(lines) == len(usual.splitlines()) + (place == "key")
    assert [line for line in lines if line.startswith("#")][1:] == ["## Base", "## Settings", "## Use"]
    assert sum(line.startswith("```") for line in lines) == 2
    assert lines.count("---") == 2
    # outside of code spans no tag, link, image or emphasis begins
    prose = re.sub(r"`[^`]*`", "", card.partition("## Use")[0])
    assert "`" not in prose
    assert "<" not in card.partition("## Use")[0]
    assert not re.search(r"(?<!\\)(\[|\]|\*)", prose)
    # and every row of the settings has two cells
    rows = [line for line in card.partition("## Settings")[2].splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {3}


def snippet(card: str) -> str:
    found = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.parametrize("random", [False, True], ids=["checkpoint", "random base"])
def test_the_snippet_runs(
    random: bool,
    finished_run: Callable[..., Any],
    tiny_sam: Callable[[], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    save_file(fuse_projections(tiny_sam()).state_dict(), checkpoint)
    adapted = finished_run(tmp_path / "run", checkpoint=None if random else checkpoint)
    (tmp_path / "run" / "config.json").unlink()  # as for somebody who got the adapter alone
    directory = tmp_path / "run" / "adapter"
    pixels = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    code = snippet((directory / "README.md").read_text())
    for name, path in (
        ("PATH_TO_THIS_DIRECTORY", directory),
        ("PATH_TO_BASE_CHECKPOINT", checkpoint),
        ("image.png", tmp_path / "image.png"),
    ):
        assert code.count(name) == (0 if random and "BASE" in name else 1)
        code = code.replace(name, str(path))
    variables: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), variables)
    masks = variables["masks"]
    expected = TorchPredictor(adapted.sam, 64).segment(pixels, boxes=[[10, 10, 60, 60]])
    assert masks.masks.shape == (1, 70, 80)
    assert np.abs(masks.low_res_logits - expected.low_res_logits).max() < 1e-5
    assert capsys.readouterr().out == f"(1, 70, 80) {masks.scores}\n"
