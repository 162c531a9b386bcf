"""The named endpoints, as a program calls them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from lora_sam import load, read_image

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def client(app: str) -> Iterator[Any]:
    from gradio_client import Client

    with_client = Client(app, verbose=False)
    yield with_client
    with_client.close()


@pytest.fixture(scope="module")
def image(blobs: Path) -> Path:
    return blobs / "images" / "test" / "1.png"


def decoded(content: dict[str, Any]) -> np.ndarray:
    return np.stack([coco_mask.decode(one["segmentation"]) for one in content["annotations"]]).astype(bool)


def test_the_endpoints_are_documented(client: Any) -> None:
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/segment", "/compare", "/everything"}
    assert all(one["description"] for one in named.values())
    names = {name: [one["parameter_name"] for one in about["parameters"]] for name, about in named.items()}
    assert names == {
        "/segment": ["image", "prompts", "model", "run", "alpha", "backend", "choice"],
        "/compare": ["image", "prompts", "run", "alpha", "backend", "choice"],
        "/everything": ["image", "options", "run", "alpha", "backend"],
    }


def test_the_documented_client_works(app: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "app.md").read_text(encoding="utf-8")
    (code,) = [text for text in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "gradio_client" in text]
    monkeypatch.chdir(tmp_path)
    with Image.open(image) as small:  # the page's prompts are for a photograph
        small.resize((640, 480)).save(tmp_path / "image.png")
    names: dict[str, Any] = {}
    exec(compile(code.replace("http://127.0.0.1:7860/", app), "app.md", "exec"), names)
    names["client"].close()
    assert {"base", "tuned", "figures"} <= names["both"].keys()
    assert names["coco"]["images"]
    assert names["found"]["size"] == [480, 640]


def test_segment_gives_the_masks_of_the_predictor(client: Any, image: Path, work: Path) -> None:
    from gradio_client import handle_file

    prompts = [{"box": [5, 6, 30, 28]}, {"points": [[40, 20, 1], [3, 3, 0]]}]
    answer = client.predict(
        handle_file(image), json.dumps(prompts), "tuned", "", 1, "torch", "single", api_name="/segment"
    )
    predictor = load(work / "outputs" / "second", device="cpu")
    box = predictor.segment(read_image(image), boxes=[[5, 6, 30, 28]])
    points = predictor.segment(read_image(image), points=[[[40, 20], [3, 3]]], labels=[[1, 0]])
    expected = np.concatenate([box.masks, points.masks])
    assert [one["id"] for one in answer["annotations"]] == [n + 1 for n in range(2) if expected[n].any()]
    assert np.array_equal(decoded(answer), expected[expected.any(axis=(1, 2))])
    assert answer["annotations"][0]["score"] == pytest.approx(float(box.scores[0]), abs=1e-4)


def test_compare_gives_both_and_their_figures(client: Any, image: Path) -> None:
    from gradio_client import handle_file

    prompts = json.dumps([{"box": [5, 6, 30, 28]}])
    answer = client.predict(handle_file(image), prompts, "first", 1, "torch", "single", api_name="/compare")
    assert {"base", "tuned", "figures", "mean_iou"} == set(answer)
    (row,) = answer["figures"]
    assert row["base"]["dice"] == 1
    assert row["tuned"]["area"] == decoded(answer["tuned"])[0].sum()
    none = client.predict(handle_file(image), prompts, "first", 0, "torch", "single", api_name="/compare")
    assert none["base"]["annotations"] == none["tuned"]["annotations"] == answer["base"]["annotations"]


def test_everything_gives_masks_of_both(client: Any, image: Path) -> None:
    from gradio_client import handle_file

    options = json.dumps({"points_per_side": 3, "predicted_iou": 0, "stability": 0})
    answer = client.predict(handle_file(image), options, "", 1, "torch", api_name="/everything")
    assert answer["size"] == [48, 64]
    assert len(answer["base"]) >= 1
    assert len(answer["tuned"]) >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": "["}, "prompts cannot be read"),
        ({"prompts": '[{"box": [900, 900, 950, 950]}]'}, "has no area inside the image"),
        ({"run": "../../etc"}, "there is no run"),
        ({"alpha": 7}, "alpha"),
        ({"alpha": None}, "alpha is null, must be a number from 0 to 1.5"),
        ({"prompts": "[{}]"}, "object 1 has neither a box nor a point"),
        ({"choice": "best", "backend": "openvino int8"}, "has no back end"),
    ],
)
def test_a_mistake_comes_back_as_one_sentence(client: Any, image: Path, changes: dict[str, Any], message: str) -> None:
    from gradio_client import handle_file

    given = {
        "prompts": "[]",
        "model": "tuned",
        "run": "",
        "alpha": 1,
        "backend": "torch",
        "choice": "single",
        **changes,
    }
    with pytest.raises(Exception, match=message):
        client.predict(handle_file(image), *given.values(), api_name="/segment")


def test_no_path_of_the_server_is_opened(client: Any, work: Path) -> None:
    stolen = {"path": str(work / "outputs" / "second" / "config.json"), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match=r"(?i)not|error"):
        client.predict(stolen, "[]", "tuned", "", 1, "torch", "single", api_name="/segment")


def test_a_text_file_is_no_image(client: Any, work: Path) -> None:
    from gradio_client import handle_file

    path = work / "text.png"
    path.write_text("just text")
    with pytest.raises(Exception, match="is damaged or not an image"):
        client.predict(handle_file(path), "[]", "tuned", "", 1, "torch", "single", api_name="/segment")
