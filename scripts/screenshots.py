"""Takes the pictures of the documentation: `python scripts/screenshots.py`, or `make screenshots`.

Both demos are trained first, unless `--outputs DIR` has them as `DIR/demo` and `DIR/everything`. `--look DIR` writes
the app, wide and narrow, light and dark, and every page of `site/` into DIR instead: to be looked at, not to be kept.
Which images of a run are shown is the rule of its report: largest, median and smallest gain.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PICTURES = ROOT / "docs" / "images"
DEMOS = {"demo": "demo", "everything": "demo_everything"}
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
READY = "window.loraSam && loraSam.state().answer && !loraSam.state().busy"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 once the pictures are written, 2 where no browser is there."""
    parser = argparse.ArgumentParser(description="Take the pictures of the documentation.")
    parser.add_argument("--outputs", type=Path, help="runs that are there already: demo and everything")
    parser.add_argument("--look", type=Path, metavar="DIR", help="write pictures of all views into DIR instead")
    given = parser.parse_args(arguments)
    browser = shutil.which("chromium")
    if browser is None:
        sys.stderr.write("error: chromium is not there; `make screenshots` installs it\n")
        return 2
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        outputs = (Path(temporary) / "outputs" if given.outputs is None else given.outputs).resolve()
        train_missing(outputs, DEMOS if given.look is None else ("demo",))
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        if given.look is None:
            of_documentation(chromium, outputs)
        else:
            given.look.mkdir(parents=True, exist_ok=True)
            of_app(chromium, outputs, given.look)
            of_site(chromium, given.look)
        chromium.close()
    return 0


def train_missing(outputs: Path, names: Iterable[str]) -> None:
    """Train those demos that are not below `outputs`."""
    for name in names:
        if not (outputs / name / "evaluation.json").is_file():
            _call("train.py", f"experiment={DEMOS[name]}", f"hydra.run.dir={outputs.name}/{name}", place=outputs.parent)


def of_documentation(chromium: Any, outputs: Path) -> None:
    """The files of docs/images."""
    from lora_sam.core.run_directory import RunDirectory
    from scripts.figure_of_run import write_figure, write_found

    def told(path: Path) -> None:
        print(f"{path.name:20} {path.stat().st_size / 1000:6.0f} kB")

    write_figure(PICTURES / "demo.png", RunDirectory(outputs / "demo"))
    told(PICTURES / "demo.png")
    write_found(PICTURES / "everything.png", RunDirectory(outputs / "everything"))
    told(PICTURES / "everything.png")
    report = (outputs / "demo" / "report.html").as_uri()
    told(_page(chromium, report, PICTURES / "report.png", {"width": 880, "height": 1408}))
    with tempfile.TemporaryDirectory() as temporary:
        tests = sorted((outputs.parent / "data" / "smears" / "images" / "test").glob("*.png"))[:4]
        for path in tests:
            shutil.copy(path, temporary)
        found = Path(temporary) / "found"
        _call("-m", "lora_sam.predict", f"run={outputs / 'everything'}", f"source={temporary}", f"output={found}",
              place=outputs.parent)  # fmt: skip
        page = (found / "predictions.html").as_uri()
        told(_page(chromium, page, PICTURES / "predictions.png", {"width": 1000, "height": 790}))
    with app(outputs) as address:
        for name, view in (("app", WIDE), ("app_phone", NARROW)):
            told(_page(chromium, address, PICTURES / f"{name}.png", view, after=_shown))


def of_app(chromium: Any, outputs: Path, folder: Path) -> None:
    """Every view of the app at both widths, light and dark; all of a page where it is longer than the window."""
    views: dict[str, Callable[[Any], None]] = {
        "compare": lambda page: None,
        "difference": lambda page: page.get_by_role("button", name="Difference").click(),
        "zoom": lambda page: page.evaluate("for (const n of [1, 2, 3]) loraSam.actions.closer()"),
        "slider": _slide,
        "everything": _everything,
        "metrics": _metrics,
    }
    with app(outputs) as address:
        for width, view in (("wide", WIDE), ("narrow", NARROW)):
            for scheme in ("light", "dark"):
                context = chromium.new_context(viewport=view, color_scheme=scheme)
                page = context.new_page()
                page.goto(address, wait_until="commit")
                page.wait_for_selector(".ls-skeleton, .ls-panel", timeout=60_000)
                page.screenshot(path=folder / f"app-loading-{width}-{scheme}.png")
                _shown(page)
                page.screenshot(path=folder / f"app-first-{width}-{scheme}.png")
                for name, act in views.items():
                    page.goto(address)
                    _shown(page)
                    act(page)
                    page.wait_for_timeout(800)
                    page.screenshot(path=folder / f"app-{name}-{width}-{scheme}.png", full_page=True)
                context.close()


def of_site(chromium: Any, folder: Path) -> None:
    """Every page of the built documentation at both widths, and on stderr those that are wider than the window."""
    site = ROOT / "site"
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix().replace("/", "-").removesuffix(".html")
        for width, view in (("wide", WIDE), ("narrow", NARROW)):
            context = chromium.new_context(viewport=view)
            page = context.new_page()
            page.goto(path.as_uri())
            page.wait_for_timeout(300)
            if (broad := page.evaluate("document.documentElement.scrollWidth")) > view["width"]:
                sys.stderr.write(f"{name} is {broad} px wide in a window of {view['width']}\n")
            page.screenshot(path=folder / f"site-{name}-{width}.png", full_page=True)
            context.close()


@contextmanager
def app(outputs: Path) -> Iterator[str]:
    """Address of the app on the run `demo`, started where the data of the runs lie."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    command = [sys.executable, str(ROOT / "app.py"), "run=demo", "--outputs", outputs.name, "--port", str(port)]
    process = subprocess.Popen(command, cwd=outputs.parent, env=_environment())
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _shown(page: Any) -> None:
    page.wait_for_function(READY, timeout=180_000)
    # size and times of the back end come last
    page.wait_for_timeout(2500)


def _slide(page: Any) -> None:
    page.get_by_role("tab", name="Slider: base | tuned").click()
    page.wait_for_timeout(4000)


def _everything(page: Any) -> None:
    page.get_by_role("button", name="Everything, without prompts").click()
    page.evaluate("loraSam.everything({ points_per_side: 12 })")
    page.wait_for_function("loraSam.state().everything", timeout=180_000)


def _metrics(page: Any) -> None:
    page.get_by_role("tab", name="Metrics").click()
    page.locator(".ls-metrics .pictures button").first.wait_for(timeout=60_000)
    page.wait_for_timeout(1500)


def _page(
    chromium: Any, address: str, path: Path, view: dict[str, int], after: Callable[[Any], None] = lambda page: None
) -> Path:
    """A picture of what a window of this size shows, in at most 256 colours."""
    context = chromium.new_context(viewport=view)
    page = context.new_page()
    page.goto(address)
    after(page)
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    context.close()
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    return path


def _call(*words: str, place: Path) -> None:
    program = [str(ROOT / words[0])] if words[0].endswith(".py") else [words[0]]
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, *program, *words[1:]], cwd=place, env=_environment(), check=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "LORA_SAM_OFFLINE": "1"}


if __name__ == "__main__":
    sys.exit(main())
