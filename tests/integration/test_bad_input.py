"""A user's mistakes on the real command line: one line with culprit and remedy, before torch is imported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Done
from tests.processes import Commands

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def without_torch() -> Iterator[Commands]:
    """The command fails if anything imports torch before the mistake is found."""
    commands = Commands(without="torch")
    yield commands
    commands.end()


@pytest.fixture
def refused(without_torch: Commands, tmp_path: Path) -> Callable[..., str]:
    """The message of a command that has to fail with exit code 2 and without a traceback."""
    return lambda *words: message_of(without_torch(*words, cwd=tmp_path))


def message_of(done: Done) -> str:
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.err
    return lines[0]


def test_where_torch_is_imported_the_command_fails(without_torch, blobs, tmp_path):
    done = without_torch("model=tiny_random", f"data.root={blobs}", cwd=tmp_path)
    assert done.code == 1
    assert "import of torch halted" in done.err


def change_annotations(data: Path, change: Callable[[dict], None]) -> None:
    path = data / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def truncate(data: Path) -> None:
    path = data / "images" / "train" / "1.png"
    path.write_bytes(path.read_bytes()[:200])


def shrink_image(data: Path) -> None:
    Image.new("RGB", (32, 24)).save(data / "images" / "train" / "2.png")


def empty_split(data: Path) -> None:
    change_annotations(data, lambda content: content["annotations"].clear())


COCO = {
    "missing image": (lambda data: (data / "images" / "train" / "1.png").unlink(), "1.png"),
    "truncated image": (truncate, "1.png"),
    "image of another size": (shrink_image, "2.png"),
    "empty mask": (
        lambda data: change_annotations(
            data, lambda content: content["annotations"][0]["segmentation"].update(counts=[48 * 64])
        ),
        "annotation 1",
    ),
    "mask of another size": (
        lambda data: change_annotations(
            data, lambda content: content["annotations"][1]["segmentation"].update(size=[10, 10], counts=[50, 50])
        ),
        "annotation 2",
    ),
    "annotation without image": (
        lambda data: change_annotations(data, lambda content: content["annotations"][2].update(image_id=99)),
        "99",
    ),
    "path outside the root": (
        lambda data: change_annotations(data, lambda content: content["images"][0].update(file_name="../../x.png")),
        "../../x.png",
    ),
    "box outside the image": (
        lambda data: change_annotations(data, lambda content: content["annotations"][3].update(bbox=[60, 40, 90, 9])),
        "box outside the image",
    ),
    "empty split": (empty_split, "empty"),
    "no annotations file": (lambda data: (data / "annotations" / "instances_train.json").unlink(), "instances_train"),
}


@pytest.mark.parametrize("case", COCO)
def test_bad_coco_data(refused, case, blobs, tmp_path):
    damage, culprit = COCO[case]
    shutil.copytree(blobs, tmp_path / "data")
    damage(tmp_path / "data")
    message = refused("model=tiny_random", "data.root=data")
    assert culprit in message


@pytest.mark.parametrize(
    ("case", "named"),
    [
        ("mask of another size", "1.png"),
        ("empty masks", "the split 'train' is empty"),
        ("images without masks", "has no masks for the images in"),
        ("colour mask", "1.png"),
    ],
)
def test_bad_folder_data(refused, case, named, tmp_path):
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        for index in range(2):
            mask = np.zeros((20, 30), np.uint8)
            mask[5:15, 5:15] = 255
            Image.new("RGB", (30, 20)).save(tmp_path / "data" / split / "images" / f"{index}.png")
            Image.fromarray(mask).save(tmp_path / "data" / split / "masks" / f"{index}.png")
    masks = tmp_path / "data" / "train" / "masks"
    if case == "images without masks":  # one alone is left out, and counted
        for mask in masks.iterdir():
            mask.unlink()
    elif case == "mask of another size":
        Image.new("L", (10, 10), 255).save(masks / "1.png")
    elif case == "empty masks":  # one alone is a negative
        for mask in masks.iterdir():
            Image.new("L", (30, 20)).save(mask)
    else:
        colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
        Image.fromarray(colours).save(masks / "1.png")
    message = refused("model=tiny_random", "data=folder", "data.root=data")
    assert named in message


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("method.rank=0", "method.rank = 0: must be greater than or equal to 1"),
        ("optim.lr=-1", "optim.lr = -1: must be greater than 0"),
        ("method.rank=abc", "method.rank = abc: must be an integer"),
        ("method.rnk=4", "unknown key method.rnk; did you mean method.rank?"),
        ("method=lorra", "did you mean method=lora?"),
        ("model.image_size=500", "model.image_size = 500"),
        ("method.blocks=last:9", "the image encoder has only 2 blocks"),
        ("resume=latest", "no run has been made here yet"),
        ("model.checkpoint=absent.pth model.weights=pretrained", "model.checkpoint = absent.pth: no such file"),
    ],
)
def test_bad_configuration(refused, argument, message, blobs):
    assert message in refused("model=tiny_random", f"data.root={blobs}", *argument.split())


def test_wrong_checkpoint_for_the_variant(option, blobs, tmp_path, command_line):
    from safetensors.torch import save_file

    save_file(option("model/tiny_random")._random().state_dict(), tmp_path / "tiny.safetensors")
    message = message_of(command_line("model=nano", "model.checkpoint=tiny.safetensors", f"data.root={blobs}"))
    assert "wrong checkpoint for model=nano: it holds a ViT with 32 channels and 2 blocks" in message


def test_skipping_is_counted_listed_and_limited(refused, blobs, tmp_path, command_line):
    shutil.copytree(blobs, tmp_path / "data")
    truncate(tmp_path / "data")
    message = refused("model=tiny_random", "data.root=data", "data.on_error=skip")
    assert "max_skipped" in message
    assert "1.png" in message
    done = command_line(
        "model=tiny_random", "data.root=data", "data.on_error=skip", "data.max_skipped=0.2", "trainer.max_steps=1",
        "trainer.overlays=0",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "skipped 1" in done.err
    assert "1.png" in done.err


def test_too_little_space_is_found_before_training(option, blobs, tmp_path, monkeypatch):
    """As on a full disk: nothing is trained that could not be saved."""
    from hydra import compose, initialize_config_dir

    from lora_sam.cli.jobs import plain
    from lora_sam.cli.run import run
    from lora_sam.core.errors import TrainingError
    from lora_sam.training.settings import settings_from

    monkeypatch.chdir(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = plain(compose("train", ["model=tiny_random", f"data.root={blobs}"]))
    with pytest.raises(
        TrainingError, match=r"1 MiB free, this run needs about 17 MiB for checkpoints; free some space"
    ):
        run(settings_from(config), config=config, output_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    (tmp_path / "file").write_text("not a directory", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"file/run: Not a directory; mend it or choose another place"):
        run(settings_from(config), config=config, output_dir=tmp_path / "file" / "run")
