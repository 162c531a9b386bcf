"""Write examples/tutorial.ipynb, executed: python scripts/tutorial_notebook.py [--steps N].

The notebook is made here and not by hand, so that what it shows is what it computed. Its first cell installs the
package where it is not there, as on a fresh hosted notebook.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "examples" / "tutorial.ipynb"
# somewhat more than the demo takes: fewer show a base that has hardly been touched
LENGTH = 200

CELLS = [
    (
        "markdown",
        """# Fine-tune Segment Anything on your own images

The pictures here are washers, drawn by the package itself, so everything runs without a download. The labels
are the metal without the hole: the base takes the whole disc, and a few minutes of training teach it better.
With your own labelled images give the name of their folder in place of the experiment:
`train("my_data", model="nano")`, or without `model` for SAM ViT-B, which is downloaded once.""",
    ),
    (
        "code",
        """import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("lora_sam") is None:  # a fresh machine: the checkout lies around this, or in it
    here = Path.cwd()
    found = [place for place in (here, *here.parents, *here.iterdir()) if (place / "conf" / "train.yaml").is_file()]
    if not found:
        raise SystemExit(f"put the checkout of lora_sam into {here}, and run this cell again")
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", str(found[0])])""",
    ),
    (
        "markdown",
        """## Train

`train` takes what the command takes: groups and options by their names. It checks labels and options first,
shows its progress, and leaves everything in one directory.""",
    ),
    (
        "code",
        """from lora_sam import train

run = train(experiment="demo", trainer={"max_epochs": None, "max_steps": STEPS, "overlays": 3}, tracker="none")
run.path""",
    ),
    (
        "markdown",
        """## Did it get better?

Base and tuned were asked with the same boxes, on test images that training has not seen. The interval resamples
these images. If it contains 0, nobody can tell.""",
    ),
    (
        "code",
        """evaluation = run.evaluation
for name in ("base", "tuned"):
    print(f"{name:6} IoU per object {evaluation[name]['iou']:.3f}")
delta, (low, high) = evaluation["delta"]["iou"], evaluation["delta"]["iou_interval"]
print(f"difference    {delta:+.3f} (95 % interval {low:+.3f} to {high:+.3f})")""",
    ),
    (
        "markdown",
        "Image, truth, base and tuned of the test image in the middle, neither the best nor the worst:",
    ),
    (
        "code",
        """from IPython.display import Image

Image(filename=Path(run.path, "overlays", "median.png"), width=900)""",
    ),
    (
        "markdown",
        """## Use it

A predictor takes boxes, points or both, in pixels of the image. The image is encoded once, however many prompts
follow. Here are the boxes of the first test image, as the evaluation took them. Without the holes there are fewer
pixels.""",
    ),
    (
        "code",
        """import json

from lora_sam import read_image

prompts = Path(run.path, "prompts", "test.json")
first = json.loads(prompts.read_text())["images"][0]
image = read_image(Path("data/washers", first["id"]), run.path)
for name, predictor in (("base", run.predictor(adapter=False)), ("tuned", run.predictor())):
    result = predictor.segment(image, boxes=first["boxes"])
    print(f"{name:6} {len(result.masks)} masks, {result.masks.sum()} pixels in all")""",
    ),
    (
        "markdown",
        """## A folder of images

Masks for every image, as COCO, for the boxes of a file. It goes on where it stopped, and one broken image stops
nothing. Without `prompts` it finds objects by itself: train with `prompt="everything"` for that.""",
    ),
    (
        "code",
        """predicted = run.predict("data/washers/images/test", prompts=prompts, formats=["coco", "overlays"])
print(sum(predicted.counts.values()), "masks in", len(predicted.counts), "images")
Image(filename=sorted(Path(predicted.directory, "overlays").glob("*.png"))[0], width=500)""",
    ),
    (
        "markdown",
        """## Where to go on

`run.report` is a page with curves, tables and pictures. `run.deploy()` folds the adapter into the weights and
writes two OpenVINO files. `docs/` has the rest: labels of other tools, sweeps, classes, large images.""",
    ),
    ("code", "run.report.name"),
]


def notebook(steps: int) -> Any:
    """The cells, not executed yet."""
    import nbformat

    made = []
    for number, (kind, text) in enumerate(CELLS):
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        made.append(make(text.replace("STEPS", str(steps)), id=f"cell-{number}"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=kernel)


def executed(book: Any, directory: Path) -> Any:
    """The notebook with its outputs, run in `directory`; no path of this machine stays in it.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    from nbclient import NotebookClient

    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    NotebookClient(book, timeout=3600, resources={"metadata": {"path": str(directory)}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if "outputs" in cell:
            # the progress is for who waits
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                for holder in (output, output.get("data", {})):
                    for key in ("text", "text/plain"):
                        if key in holder:
                            holder[key] = holder[key].replace(f"{directory}/", "").replace(str(directory), ".")
    return book


def main() -> int:
    """Exit code: 0."""
    import nbformat

    parser = argparse.ArgumentParser(description="Write examples/tutorial.ipynb, executed.")
    parser.add_argument("--steps", type=int, default=LENGTH, help="steps of the training")
    given = parser.parse_args()
    with TemporaryDirectory() as directory:
        book = executed(notebook(given.steps), Path(directory).resolve())
    nbformat.write(book, FILE)
    print(f"{FILE}: {FILE.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
