"""axe-core finds nothing serious, at both widths, light and dark; and what has to be seen is seen without scrolling.

`axe/` holds axe-core as its authors publish it, under the Mozilla Public License 2.0 (`axe/LICENSE`); it is a tool of
these tests and no part of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

AXE = Path(__file__).parent / "axe" / "axe.min.js"
WIDE = {"viewport": {"width": 1440, "height": 900}}
NARROW = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SIZES = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1440", "390"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


def serious(page: Any) -> list[str]:
    """Serious and critical findings of axe on what is shown."""
    page.wait_for_timeout(600)  # colours fade in
    found = page.evaluate("axe.run().then((found) => found.violations)")
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:6]
    ]


def everything(page: Any) -> None:
    page.evaluate("loraSam.everything({ points_per_side: 4, predicted_iou: 0, stability: 0 })")
    page.wait_for_function("loraSam.state().everything", timeout=60_000)


def unfolded(page: Any) -> None:
    for name in (
        "Everything, without prompts", "Keep as training data, and tune again", "Prompts as a table", "Save and share",
        "Python that makes these masks",
    ):  # fmt: skip
        page.get_by_role("button", name=name).click()


def metrics(page: Any) -> None:
    page.get_by_role("tab", name="Metrics").click()
    page.locator(".ls-metrics .pictures button").first.wait_for(timeout=30_000)


@SIZES
@SCHEMES
def test_axe_finds_nothing_serious(
    opened: Callable[..., Any], size: dict[str, Any], scheme: str, screenshot: Callable[..., Path]
) -> None:
    page = opened(color_scheme=scheme, **size)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    findings = {"compare": serious(page)}
    page.get_by_role("button", name="Difference").click()
    findings["difference"] = serious(page)
    page.get_by_role("button", name="Masks", exact=True).click()
    everything(page)
    findings["everything"] = serious(page)
    unfolded(page)
    findings["unfolded"] = serious(page)
    screenshot(page, "unfolded")
    page.get_by_role("tab", name="Slider: base | tuned").click()
    findings["slider"] = serious(page)
    metrics(page)
    findings["metrics"] = serious(page)
    screenshot(page, "metrics")
    assert {name: found for name, found in findings.items() if found} == {}


def test_axe_would_find_something(page: Any) -> None:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.evaluate(
        "document.querySelector('.ls-root').insertAdjacentHTML('afterbegin', '<button></button><img src=\"data:,\">')"
    )
    assert {one.split(":")[0] for one in serious(page)} >= {"button-name", "image-alt"}


@SIZES
@SCHEMES
def test_both_images_are_seen_without_scrolling(
    opened: Callable[..., Any], size: dict[str, Any], scheme: str, screenshot: Callable[..., Path]
) -> None:
    page = opened(color_scheme=scheme, **size)
    screenshot(page)
    frames = page.evaluate(
        "[...document.querySelectorAll('.ls-image')].map((one) => one.getBoundingClientRect().toJSON())"
    )
    window = size["viewport"]
    assert len(frames) == 2
    assert all(frame["top"] >= 0 and frame["bottom"] <= window["height"] for frame in frames)
    assert all(frame["left"] >= 0 and frame["right"] <= window["width"] for frame in frames)
    # of the width, the two together or each has most
    assert sum(frame["width"] for frame in frames) >= (0.5 if window["width"] > 1000 else 0.85) * window["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= window["width"]
    headline = page.locator(".ls-head p").bounding_box()
    assert 0 <= headline["y"] < frames[0]["top"]


def test_the_tools_are_one_row(opened: Callable[..., Any]) -> None:
    page = opened(**WIDE)
    tops = page.evaluate("[...document.querySelectorAll('.ls-bar button')].map((one) => one.offsetTop)")
    assert len(tops) >= 14
    assert max(tops) - min(tops) < 10


@SIZES
def test_metrics_can_be_read(opened: Callable[..., Any], size: dict[str, Any]) -> None:
    page = opened(**size)
    metrics(page)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["viewport"]["width"]
    heights = page.evaluate(
        "[...document.querySelectorAll('.ls-metrics .chart text')].map((one) => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 9


@SIZES
def test_a_skeleton_stands_where_the_images_will_be(chromium: Any, app: str, size: dict[str, Any]) -> None:
    context = chromium.new_context(**size)
    page = context.new_page()
    # the first answer is held back, as a model that is being loaded does
    held: list[Any] = []
    page.route("**/component_server**", lambda route: held.append(route))
    page.goto(app)
    page.wait_for_selector(".ls-skeleton")
    frames = page.evaluate(
        "[...document.querySelectorAll('.ls-skeleton')].map((one) => one.getBoundingClientRect().toJSON())"
    )
    assert len(frames) == 2
    assert all(frame["bottom"] <= size["viewport"]["height"] and frame["height"] > 100 for frame in frames)
    assert "Loading" in page.locator(".ls-status").inner_text()
    for route in held:
        route.continue_()
    page.unroute("**/component_server**")
    page.wait_for_function("window.loraSam && loraSam.state().answer", timeout=60_000)
    assert page.locator(".ls-skeleton").count() == 0
    context.close()
