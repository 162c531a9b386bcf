"""Added to a copy of the package: a format, method or variant is a file or two, a metric or back end is a row."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

FORMAT = '''
"""Pictures with a rectangle each, in a text file beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lora_sam.data.check.defects import Finding
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.outlined import Outline, Picture, open_pictures
from lora_sam.data.reading.paths import data_root
from lora_sam.data.splits import Splits

LAYOUT = "rectangles: *.png and *.rectangle"


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    file = next(iter(sorted(root.glob("*.rectangle"))), None)
    return None if file is None else file.name


@dataclass(frozen=True, kw_only=True)
class Rectangles(FormatOptions):
    """Rectangles.

    Attributes:
        grown: Pixels that every rectangle is wider and higher than it says.
    """

    grown: int

    def open(self, seed: int) -> Splits:
        """Read everything."""
        root = data_root(self.root)
        pictures = [self._picture(root, file) for file in sorted(root.glob("*.rectangle"))]
        return open_pictures(self, root, pictures, seed=seed, what="rectangles")

    def findings(self, root: Path, looks: object) -> Iterable[Finding]:
        """What is found in the files."""
        return [Finding("unreadable_file", "0.rectangle", "seen by the format itself")]

    def _picture(self, root: Path, file: Path) -> Picture:
        left, top, right, bottom = (float(word) for word in file.read_text().split())
        right, bottom = right + self.grown, bottom + self.grown
        ring = [left, top, right, top, right, bottom, left, bottom]
        return Picture(owner=str(file), image=f"{file.stem}.png", outlines=(Outline(rings=(ring,)),), split=None)
'''

METHOD = '''
"""The decoder's own way to the masks trains, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """Train only a part of the mask decoder.

    Attributes:
        part: Which one.
    """

    part: str

    @property
    def name(self) -> str:
        """`narrow`."""
        return "narrow"

    def check_depth(self, depth: int) -> None:
        """Any depth will do."""

    def apply(self, sam: Any) -> Any:
        """See `lora_sam.methods.Method.apply`."""
        from peft import LoraConfig

        from lora_sam.methods.adapted import insert
        from lora_sam.methods.peft_config import NO_TARGETS

        return insert(sam, LoraConfig(target_modules=NO_TARGETS, modules_to_save=[self.part]), trains_encoder=False)
'''

ASK = """
import json, sys
from hydra import compose, initialize_config_dir
from lora_sam.cli.evaluate import Evaluate
from lora_sam.cli.jobs import plain
from lora_sam.core.config import from_conf
from lora_sam.core.errors import ConfigError
from lora_sam.data.detection import formats
from lora_sam.data.check.examination import examine
from lora_sam.training.settings import settings_from
from pathlib import Path

conf, data = sys.argv[1:]

def settings(*arguments):
    with initialize_config_dir(conf, version_base="1.3"):
        return settings_from(plain(compose("train", [*arguments, f"data.root={data}"])))

found = settings()
samples = found.data.open(0).train
forced = settings("data=rectangles", "data.grown=2").data.open(0).train
settings_of_evaluate = {"run": "image_encoder.xml", "data_root": data}
from_conf("evaluate", **settings_of_evaluate, data_format="rectangles").check()
try:
    from_conf("evaluate", **settings_of_evaluate, data_format="triangles").check()
except ConfigError as error:
    refused = str(error)
answer = {
    "option": found.data.found().option,
    "layout": formats()["rectangles"],
    "areas": sorted(int(samples[n].masks.sum()) for n in range(len(samples))),
    "grown": sorted(int(forced[n].masks.sum()) for n in range(len(forced))),
    "refused": refused,
    "torch": "torch" in sys.modules,
}
examined = examine(found.data, Path(data), 0, None)
answer["findings"] = [case.detail for group in examined.groups for case in group.findings]
chosen = settings("method=narrow", "model=toy_sam")
base = chosen.model.build()
adapted = chosen.method.apply(base.sam)
answer["source"], answer["sha256"] = base.source, base.sha256
answer["trained"] = sorted(adapted.trainable())
from lora_sam.models.checkpoints import OFFICIAL
answer["published"] = OFFICIAL["toy_sam"].url
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, option: Any) -> Path:
    """A copy of the package and of conf/, with three things added: one Python file and one YAML each."""
    from safetensors.torch import save_file

    place = tmp_path_factory.mktemp("checkout")
    # with what Python has compiled of it, which it takes for files of the same time and size
    shutil.copytree(ROOT / "lora_sam", place / "lora_sam", ignore=shutil.ignore_patterns("weights"))
    shutil.copytree(ROOT / "conf", place / "conf")
    (place / "lora_sam" / "models" / "weights").symlink_to(ROOT / "lora_sam" / "models" / "weights")

    conf, package = place / "conf", place / "lora_sam"
    (package / "data" / "rectangles.py").write_text(FORMAT)
    yolo = (conf / "data" / "yolo.yaml").read_text()
    own = yolo.replace("lora_sam.data.yolo.Yolo", "lora_sam.data.rectangles.Rectangles")
    (conf / "data" / "rectangles.yaml").write_text(f"{own}grown: 0\n")

    (package / "methods" / "narrow.py").write_text(METHOD)
    (conf / "method" / "narrow.yaml").write_text(
        "_target_: lora_sam.methods.narrow.Narrow\npart: iou_prediction_head\n"
    )

    # a variant needs no Python; its weights are where a download would have put them
    weights = place / "cache" / "toy_sam_v1.safetensors"
    weights.parent.mkdir()
    state = option("model/tiny_random")._random().state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, weights)
    values = dict(line.split(": ", 1) for line in (conf / "model" / "tiny_random.yaml").read_text().splitlines()[1:])
    values |= {"variant": "toy_sam", "weights": "pretrained", "url": "https://example.invalid/toy_sam_v1.safetensors"}
    values |= {"size": weights.stat().st_size, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    (conf / "model" / "toy_sam.yaml").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    return place


RECALL = """
    Metric(
        "recall",
        "Recall",
        "share of the true pixels that were found",
        lambda pair: pair.true_positive / max(1, pair.true_positive + pair.false_negative),
    ),
)
\"\"\"All metrics, in"""
LOW = """
        BackEnd("fp32_low", "openvino", "fp32", "bf16", "OpenVINO, fp32 weights, low arithmetic", _IR_REFERENCES),
    )
}
\"\"\"All back ends by name"""
SHOW = """
import json, sys
from pathlib import Path
from lora_sam.app.backends import backends_of
from lora_sam.core.run_directory import RunDirectory
print(json.dumps(sorted(backends_of(RunDirectory(Path(sys.argv[1]))))))
"""


HELP = "from lora_sam.cli.train import run_train; sys.exit(run_train('train.py', ['--help']))"
TRAIN = "from lora_sam.cli.train import run_train; sys.exit(run_train('train.py', sys.argv[1:]))"
# what measures memory has a process of its own, which imports all once more
EVALUATE = """
from lora_sam.cli.step import run_step
from lora_sam.deployment import peak_memory

class Here:
    def run(command, **how):
        with contextlib.redirect_stdout(io.StringIO()) as text:
            assert peak_memory.main(command[3:]) == 0
        Here.stdout = text.getvalue()
        return Here

peak_memory.subprocess = Here
sys.exit(run_step("evaluate", "x", sys.argv[1:]))
"""
IN_TURN = """
import contextlib, io, json, sys

said = {}
for name, code, words in json.loads(sys.stdin.read()):
    sys.argv = ["-c", *words]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            exec(compile(code, name, "exec"), {"sys": sys, "contextlib": contextlib, "io": io})
        except SystemExit as stop:
            assert not stop.code, (name, stop.code)
    said[name] = out.getvalue()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def with_rows(checkout: Path) -> Path:
    """The copy with a row more in the list of metrics, and in that of back ends."""
    for file, end, row in (
        ("evaluation/metrics.py", '\n)\n"""All metrics, in', RECALL),
        ("evaluation/backends/names.py", '\n    )\n}\n"""All back ends by name', LOW),
    ):
        path = checkout / "lora_sam" / file
        text = path.read_text()
        assert text.count(end) == 1
        path.write_text(text.replace(end, row))
    return checkout


@pytest.fixture(scope="module")
def said(with_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What a Python with the copy says, asked for one thing after the other."""
    import numpy as np
    from PIL import Image

    data = tmp_path_factory.mktemp("rectangles")
    for n in range(5):
        Image.fromarray(np.full((24, 32, 3), 40 * n, np.uint8)).save(data / f"{n}.png")
        (data / f"{n}.rectangle").write_text(f"4 4 {12 + n} 12")
    words = ["experiment=smoke", "trainer.max_steps=2", "trainer.cache=off", "tracker=none", "model.image_size=64"]
    words += ["data.train=2", "data.val=1", "data.test=2", "hydra.run.dir=run"]
    exported = shutil.copytree(ROOT / "tests" / "fixtures" / "run_before_rooms", with_rows / "exported")
    in_turn = [
        ("help", HELP, []),
        ("ask", ASK, [str(with_rows / "conf"), str(data)]),
        ("train", TRAIN, words),
        ("show", SHOW, [str(exported)]),
        ("evaluate", EVALUATE, [f"run={exported}", "backends=[tuned,fp32_low]", "repeats=1"]),
    ]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(with_rows), "HOME": str(with_rows)}
    environment |= {"LORA_SAM_CACHE": str(with_rows / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN],
        input=json.dumps(in_turn), cwd=with_rows, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_help_lists_what_was_added(said: Mapping[str, str]) -> None:
    shown = said["help"]
    (data,) = [line for line in shown.splitlines() if line.strip().startswith("data:")]
    (methods,) = [line for line in shown.splitlines() if line.strip().startswith("method:")]
    (models,) = [line for line in shown.splitlines() if line.strip().startswith("model:")]
    assert "rectangles" in data
    assert "narrow" in methods
    assert "toy_sam" in models


def test_what_was_added_works_everywhere(checkout: Path, said: Mapping[str, str]) -> None:
    answer = json.loads(said["ask"].splitlines()[-1])
    # the format: found by itself, chosen by name, known to evaluate, and asked by the data check
    assert answer["option"] == "rectangles"
    assert answer["layout"] == "rectangles: *.png and *.rectangle"
    assert len(answer["areas"]) == 4  # of five, one is for test
    assert all(area % 8 == 0 for area in answer["areas"])
    assert all(area % 10 == 0 for area in answer["grown"])
    assert "data_format = triangles: must be one of auto, coco, " in answer["refused"]
    assert "rectangles" in answer["refused"]
    assert "datumaro_import" not in answer["refused"]
    assert not answer["torch"]
    assert "seen by the format itself" in answer["findings"]
    # the method
    assert answer["trained"]
    assert all("mask_decoder.iou_prediction_head." in name for name in answer["trained"])
    # the variant: its file is the published one, by size and digest
    assert answer["source"] == "toy_sam_v1.safetensors"
    assert answer["sha256"] == hashlib.sha256((checkout / "cache" / answer["source"]).read_bytes()).hexdigest()
    assert answer["published"].endswith("/toy_sam_v1.safetensors")


def test_a_metric_is_one_row(with_rows: Path, said: Mapping[str, str]) -> None:
    assert "Recall" in said["train"]
    run = with_rows / "run"
    report = json.loads((run / "evaluation.json").read_text())
    for part in ("base", "tuned"):
        low, high = report[part]["recall_interval"]
        assert 0 <= low <= report[part]["recall"] <= high <= 1
        assert report[part]["recall"] >= report[part]["iou"]
    assert report["delta"]["recall"] == pytest.approx(report["tuned"]["recall"] - report["base"]["recall"])
    assert "| Recall |" in (run / "adapter" / "README.md").read_text()
    page = (run / "report.html").read_text()
    assert "Recall" in page
    assert "share of the true pixels that were found" in page


def test_a_back_end_is_one_row(with_rows: Path, said: Mapping[str, str]) -> None:
    assert json.loads(said["show"]) == ["merged", "openvino fp32", "openvino fp32_low"]
    assert "fp32_low" in said["evaluate"]
    measured = json.loads((with_rows / "exported" / "backends.json").read_text())["backends"]
    assert measured["fp32_low"]["iou_with_torch"] > 0.9
