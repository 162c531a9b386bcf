"""The app on a finished run of a tiny model, and Debian's Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TINY = [
    "model=tiny_random",
    "trainer.max_epochs=4",
    "trainer.device=cpu",
    "tracker=none",
    "optim.lr=0.003",
]

# training in which the base is no candidate, so that base and tuned differ
TRAINED = """
import sys
from lora_sam.cli.train import run_train
from lora_sam.report.shown_validation import ShownValidation
measure = ShownValidation.__call__
ShownValidation.__call__ = lambda self, step: measure(self, step) if step else 0.0
sys.exit(run_train("train.py", sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def work(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `outputs`, in which are the runs `first` and, the latest and exported, `second`."""
    directory = tmp_path_factory.mktemp("work")
    for name, method in (("first", "decoder"), ("second", "lora")):
        command = [sys.executable, "-c", TRAINED, *TINY, f"data.root={blobs}", f"method={method}"]
        subprocess.run(
            [*command, f"hydra.run.dir=outputs/{name}"],
            cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
    for step in (["lora_sam.merge"], ["lora_sam.export", "precision=fp32"]):
        command = [sys.executable, "-m", step[0], "run=outputs/second", *step[1:]]
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=300)
    return directory


@contextmanager
def served(work: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of an app on the runs of `work`; it is ended at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--port", str(port)],
            cwd=work,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 120
            while not _answers(address):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "the app did not start"
                time.sleep(0.2)
            yield address, process
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def app(work: Path) -> Iterator[str]:
    """Address of the running app, whose model is loaded."""
    log = work / "app.log"
    with served(work, log) as (address, process):
        yield address
        assert process.poll() is None, "the app died"
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser; without one the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed; `make test-browser` installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, app: str) -> Iterator[Any]:
    """The app in a fresh profile, after its first masks; fails on errors of scripts and on requests elsewhere."""
    yield from _page(chromium, app)


@pytest.fixture
def opened(chromium: Any, app: str) -> Iterator[Callable[..., Any]]:
    """Opens the app with a query and options of the browser context."""
    pages = []

    def make(query: str = "", **options: Any) -> Any:
        pages.append(_page(chromium, app + query, **options))
        return next(pages[-1])

    yield make
    for one in pages:
        next(one, None)


@pytest.fixture
def screenshot(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Saves what a page shows in $LORA_SAM_SCREENSHOTS, under the name of the test."""

    def save(page: Any, view: str = "") -> Path:
        folder = Path(os.environ.get("LORA_SAM_SCREENSHOTS", tmp_path))
        path = folder / f"{request.node.name}{view and '-'}{view}.png"
        page.screenshot(path=path, full_page=True)
        return path

    return save


def _page(chromium: Any, address: str, **options: Any) -> Iterator[Any]:
    context = chromium.new_context(**{"viewport": {"width": 1300, "height": 900}, **options})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("request", lambda request: wrong.append(request.url) if _foreign(request.url) else None)
    page.goto(address)
    settle(page)
    yield page
    context.close()
    assert wrong == []


def settle(page: Any) -> None:
    """Wait until the masks of the present prompts are shown."""
    page.wait_for_function("window.loraSam && loraSam.state().answer && !loraSam.state().busy", timeout=60_000)


def _foreign(url: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and "//127.0.0.1:" not in url


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
