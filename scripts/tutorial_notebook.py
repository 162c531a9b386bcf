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

CELLS = [
    (
        "markdown",
        """# Fine-tune Segment Anything on your own images

The pictures here are washers, drawn by the package itself, so everything runs without a download. The labels
are the metal without the hole: the base takes the whole disc, and a few minutes of training teach it better.
With your own labelled images replace `data="demo"` by the name of their folder.""",
    ),
    (
        "code",
        """import importlib.util
import subprocess
import sys

if importlib.util.find_spec("lora_sam") is None:  # a fresh machine: this notebook lies in examples/ of the checkout
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", ".."])""",
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
delta = evaluation["delta"]["iou"]
print(f"difference    {delta:+.3f}")""",
    ),
    ("markdown", "Image, truth, base and tuned of one test image:"),
    (
        "code",
        """from pathlib import Path

from IPython.display import Image

picture = sorted(Path(run.path, "overlays").glob("*.png"))[0]
Image(filename=picture, width=900)""",
    ),
    (
        "markdown",
        """## Use it

A predictor takes boxes, points or both, in pixels of the image. The image is encoded once, however many prompts
follow.""",
    ),
    (
        "code",
        """from lora_sam import read_image

name = sorted(Path("data/washers/images/test").iterdir())[0]
image = read_image(name, run.path)
predictor = run.predictor()
by_point = predictor.segment(image, points=[[image.shape[1] // 2, image.shape[0] // 2]])
print(by_point.masks.shape, by_point.scores)""",
    ),
    (
        "markdown",
        """## A folder of images

Masks without prompts for every image, as COCO. It goes on where it stopped, and one broken image stops nothing.""",
    ),
    (
        "code",
        """import shutil

Path("some_images").mkdir(exist_ok=True)
for file in sorted(Path("data/washers/images/test").iterdir())[:2]:
    shutil.copy(file, "some_images")
predicted = run.predict("some_images", formats=["coco", "overlays"], points_per_side=8)
print(predicted.counts)
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
    parser.add_argument("--steps", type=int, default=200, help="steps of the training")
    given = parser.parse_args()
    with TemporaryDirectory() as directory:
        book = executed(notebook(given.steps), Path(directory).resolve())
    nbformat.write(book, FILE)
    print(f"{FILE}: {FILE.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
