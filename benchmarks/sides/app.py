"""Serve the app and use it in Chromium: how long what a person waits for takes."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
READY = "window.loraSam && loraSam.state().answer && !loraSam.state().busy"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--axe", type=Path, required=True)
    given = parser.parse_args(arguments)

    # data of a run lie where it was made, and are drawn anew anywhere else
    os.chdir(given.outputs.resolve().parent)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto("about:blank")
        answer = use(page, given)
        answer["browser"] = f"Chromium {chromium.version}"
        dark = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark").new_page()
        dark.goto(page.url)
        dark.wait_for_function(READY, timeout=120_000)
        answer["serious"] = findings(page, given.axe) + findings(dark, given.axe)
        chromium.close()
    print(json.dumps(answer))
    return 0


def use(page: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Start the app in this process, open it in `page`, and click."""
    start = time.perf_counter()
    import lora_sam.app.web.page  # noqa: F401  # all that the server imports before it serves
    from lora_sam.app.web.server import serve

    imported = time.perf_counter()
    from lora_sam.app.workbench import Workbench

    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if _foreign(request.url) else None)
    served = serve(Workbench(Path(given.outputs.name)), host="127.0.0.1", port=None)
    launched = time.perf_counter()
    page.goto(served.local_url, wait_until="commit")
    # its clock begins with the request of the page
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length", timeout=60_000)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1e3
    painted = time.perf_counter()
    page.wait_for_function(f"({READY}) || document.querySelector('.ls-status.ls-wrong')", timeout=300_000)
    wrong = page.locator(".ls-status.ls-wrong")
    if wrong.count():
        raise SystemExit(wrong.inner_text())
    ready = time.perf_counter()
    columns = page.evaluate("loraSam.state().answer.columns.map((one) => one.mean_iou)")

    first = []
    for number in range(1, min(6, page.locator(".ls-strip button").count())):
        time.sleep(0.5)
        begun = time.perf_counter()
        before = page.evaluate("loraSam.timings.length")
        page.locator(".ls-strip button").nth(number).click()
        page.wait_for_function(f"loraSam.timings.length > {before}", timeout=60_000, polling=10)
        first.append(time.perf_counter() - begun)

    page.locator("[data-do=clear]").click()
    page.wait_for_function(READY)
    page.evaluate("loraSam.timings.length = 0")
    board = page.locator(".ls-panel:first-child .ls-marks")
    board.scroll_into_view_if_needed()
    frame = board.bounding_box()
    draws = random.Random(0)
    for number in range(given.clicks):
        # every click begins a new object: what another prompt costs, and no more
        page.evaluate("loraSam.actions.clear()") if number % 8 == 7 else page.evaluate("loraSam.actions.add()")
        page.wait_for_function(READY)
        time.sleep(0.4)  # until table, snippet and address have followed
        x, y = (draws.uniform(0.1, 0.9) for _ in range(2))
        clicks = page.evaluate("loraSam.timings.length")
        page.mouse.click(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])
        page.wait_for_function(f"loraSam.timings.length > {clicks}", timeout=60_000)
    timed = [one for one in page.evaluate("loraSam.timings") if one["model"] > 0 and one["encode"] == 0]
    return {
        "import_seconds": imported - start,
        "paint_seconds": launched - imported + paint,
        "launch_seconds": launched - imported,
        "ready_seconds": ready - painted,
        "iou": columns[:2],
        "first_seconds": first,
        "click_ms": [one["total"] for one in timed],
        "outside_share": [1 - one["model"] / one["drawn"] for one in timed],
        "timings": timed,
        "foreign": len(foreign),
    }


def findings(page: Any, script: Path) -> int:
    """Serious and critical findings of axe on both tabs; each is told on stderr."""
    count = 0
    page.evaluate(script.read_text(encoding="utf-8"))
    for tab in ("Compare", "Metrics"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(2500)
        for one in page.evaluate("axe.run().then((found) => found.violations)"):
            if one["impact"] in ("serious", "critical"):
                count += 1
                nodes = "; ".join(node["html"][:160] for node in one["nodes"][:4])
                sys.stderr.write(f"{tab}: {one['id']} ({one['impact']}, {len(one['nodes'])}): {nodes}\n")
    return count


def _foreign(url: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and "//127.0.0.1:" not in url


if __name__ == "__main__":
    sys.exit(main())
