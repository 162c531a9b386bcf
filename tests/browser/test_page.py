"""The page as a person uses it: prompts by mouse, touch and keyboard, models, files, and hostile uploads."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.browser

BOARD = ".ls-panel:first-child .ls-marks"


def settle(page: Any) -> None:
    page.wait_for_timeout(60)
    page.wait_for_function("loraSam.state().answer && !loraSam.state().busy", timeout=60_000)


def state(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("loraSam.state()")
    return found


def place(page: Any, x: float, y: float) -> tuple[float, float]:
    """Page coordinates of a pixel of the image (64 x 48) in the base's panel."""
    frame = page.locator(BOARD).bounding_box()
    return frame["x"] + x / 64 * frame["width"], frame["y"] + y / 48 * frame["height"]


def click(page: Any, x: float, y: float, **options: Any) -> None:
    page.locator(BOARD).scroll_into_view_if_needed()
    if options.get("shift"):
        page.keyboard.down("Shift")
    page.mouse.click(*place(page, x, y))
    if options.get("shift"):
        page.keyboard.up("Shift")
    settle(page)


def drag(page: Any, x1: float, y1: float, x2: float, y2: float) -> None:
    page.locator(BOARD).scroll_into_view_if_needed()
    page.mouse.move(*place(page, x1, y1))
    page.mouse.down()
    page.mouse.move(*place(page, x2, y2), steps=4)
    page.mouse.up()
    settle(page)


def clear(page: Any) -> None:
    page.locator("[data-do=clear]").click()
    settle(page)


def drawn(page: Any, panel: int = 0) -> str:
    return str(page.evaluate(f"document.querySelectorAll('.ls-image')[{panel}].toDataURL()"))


def test_the_first_example_shows_base_and_tuned_without_a_setting(page: Any, screenshot: Callable[[Any], Path]) -> None:
    found = state(page)
    assert found["image"].startswith("test:")
    assert [column["label"] for column in found["answer"]["columns"]] == ["base", "tuned"]
    assert len(found["objects"]) == 3
    assert page.locator(".ls-panel").count() == 2
    assert drawn(page, 0) != drawn(page, 1)
    assert page.locator(".ls-strip button").count() == 3
    assert "mean IoU" in page.locator(".ls-status").inner_text()
    assert screenshot(page).stat().st_size > 20_000


def test_a_click_a_background_point_and_undo(page: Any, screenshot: Callable[[Any], Path]) -> None:
    clear(page)
    assert state(page)["objects"] == []
    click(page, 32, 24)
    ((x, y, label),) = state(page)["objects"][0]["points"]
    assert (abs(x - 32) < 0.5, abs(y - 24) < 0.5, label) == (True, True, 1)
    before = drawn(page, 1)
    click(page, 10, 10, shift=True)
    page.get_by_role("button", name="− background").click()
    click(page, 50, 40)
    assert [point[2] for point in state(page)["objects"][0]["points"]] == [1, 0, 0]
    screenshot(page)
    for count in (2, 1):
        page.get_by_role("button", name="Undo").click()
        settle(page)
        assert len(state(page)["objects"][0]["points"]) == count
    page.mouse.move(0, 0)
    assert drawn(page, 1) == before


def test_dragging_makes_a_box_and_each_box_is_an_object(page: Any, screenshot: Callable[[Any], Path]) -> None:
    clear(page)
    drag(page, 30, 30, 10, 5)
    box = state(page)["objects"][0]["box"]
    assert box == pytest.approx([10, 5, 30, 30], abs=0.5)
    drag(page, 35, 10, 60, 40)
    found = state(page)
    assert len(found["objects"]) == 2
    assert found["active"] == 1
    assert len(found["answer"]["columns"][1]["masks"]) == 2
    assert page.locator(".ls-table tbody tr").count() == 2
    screenshot(page)
    page.get_by_role("button", name="Remove object 1").click()
    settle(page)
    assert state(page)["objects"][0]["box"] == pytest.approx([35, 10, 60, 40], abs=0.5)


def test_two_objects_have_prompts_of_their_own(page: Any) -> None:
    clear(page)
    click(page, 20, 20)
    page.get_by_role("button", name="New object").click()
    click(page, 50, 30)
    assert [len(one["points"]) for one in state(page)["objects"]] == [1, 1]
    page.get_by_role("button", name="Choose object 1").click()
    click(page, 22, 22)
    assert [len(one["points"]) for one in state(page)["objects"]] == [2, 1]


def test_the_keyboard_is_enough(page: Any, screenshot: Callable[[Any], Path]) -> None:
    clear(page)
    page.locator(BOARD).focus()
    page.keyboard.press("Enter")
    settle(page)
    assert state(page)["objects"][0]["points"] == [[32, 24, 1]]
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Enter")
    settle(page)
    assert state(page)["objects"][0]["points"][1] == [pytest.approx(35.2), pytest.approx(24.3, abs=0.05), 0]
    page.keyboard.press("n")
    page.keyboard.press("b")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("b")
    settle(page)
    assert state(page)["objects"][1]["box"] == pytest.approx([25.6, 14.7, 35.2, 24.3], abs=0.1)
    screenshot(page)
    page.keyboard.press("u")
    settle(page)
    page.keyboard.press("1")
    page.keyboard.press("Delete")
    settle(page)
    assert all(not one["points"] and not one["box"] for one in state(page)["objects"])


def test_the_table_can_be_edited(page: Any) -> None:
    clear(page)
    drag(page, 10, 5, 30, 30)
    page.get_by_role("button", name="Prompts as a table").click()
    cell = page.locator("[data-testid='cell-0-2']").first
    cell.wait_for(timeout=20_000)
    cell.dblclick()
    page.keyboard.press("Control+A")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    page.wait_for_function("loraSam.state().objects[0].box[0] === 2", timeout=20_000)
    settle(page)


def test_difference_truth_and_opacity_cost_no_request(page: Any, screenshot: Callable[[Any], Path]) -> None:
    page.wait_for_timeout(1500)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    before = drawn(page)
    page.get_by_role("button", name="Truth").click()
    with_truth = drawn(page)
    assert with_truth != before
    page.locator("[data-do=opacity]").fill("90")
    assert drawn(page) not in (before, with_truth)
    page.get_by_role("button", name="Difference").click()
    assert page.locator(".ls-panel").count() == 1
    assert page.locator(".ls-legend").is_visible()
    screenshot(page)
    assert [url for url in requests if "component_server" in url] == []


def test_the_slider_shows_base_and_tuned(page: Any, screenshot: Callable[[Any], Path]) -> None:
    page.get_by_role("tab", name="Slider: base | tuned").click()
    page.wait_for_function(
        "[...document.querySelectorAll('[data-testid=imageslider] img, .slider-wrap img, .image-container img')]"
        ".filter((one) => one.naturalWidth === 64).length >= 2",
        timeout=30_000,
    )
    screenshot(page)


def test_strength_changes_the_tuned_masks_only(page: Any) -> None:
    columns = state(page)["answer"]["columns"]
    strength = page.get_by_label("number input for LoRA strength α")
    strength.fill("0")
    strength.press("Enter")
    page.wait_for_function("loraSam.state().alpha === 0 && loraSam.state().answer.columns[1].label.includes('α 0')")
    settle(page)
    changed = state(page)["answer"]["columns"]
    assert changed[0]["masks"] == columns[0]["masks"] == changed[1]["masks"]
    assert changed[1]["masks"] != columns[1]["masks"]


def test_another_run_and_several_runs(page: Any, screenshot: Callable[[Any], Path]) -> None:
    page.evaluate("loraSam.set({ runs: ['second', 'first'] })")
    page.wait_for_function("loraSam.state().answer.columns.length === 3", timeout=30_000)
    assert page.locator(".ls-panel").count() == 3
    assert page.locator(".ls-panel strong").all_inner_texts() == ["base", "tuned: second", "tuned: first"]
    screenshot(page)


def test_the_back_end_is_labelled_with_size_and_time_and_can_be_switched(page: Any) -> None:
    back_end = page.get_by_label("Back end of the tuned model")
    page.wait_for_function(
        "(one) => /torch: \\d.* MB, \\d+ \\+ \\d+ ms/.test(one.value)", arg=back_end.element_handle(), timeout=30_000
    )
    columns = state(page)["answer"]["columns"]
    back_end.click()
    page.get_by_role("option", name=re.compile(r"openvino fp32: \d")).click()
    page.wait_for_function("loraSam.state().answer.columns[1].label === 'tuned, openvino fp32'", timeout=30_000)
    found = state(page)["answer"]["columns"]
    assert found[0]["masks"] == columns[0]["masks"]
    assert found[1]["mean_iou"] == pytest.approx(columns[1]["mean_iou"], abs=0.01)
    page.evaluate("loraSam.set({ backend: 'openvino int8' })")
    page.wait_for_function("document.querySelector('.ls-status').textContent.includes('has no back end')")


def picture(form: str = "PNG", size: tuple[int, int] = (30, 20), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (90, 120, 30)).save(file, format=form, **options)
    return file.getvalue()


def one_bit_png(side: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_uploads_good_and_hostile(page: Any, screenshot: Callable[[Any], Path]) -> None:
    chosen = page.locator(".ls-file")
    gif = picture("GIF", save_all=True, append_images=[Image.new("RGB", (30, 20))])
    for content, name, sentence in (
        (b"this is text", "text.png", "text.png is damaged or not an image; choose PNG"),
        (picture()[:60], "half.png", "half.png"),
        (gif, "moving.gif", "moving.gif has 2 pages or frames"),
        (one_bit_png(12_000), "bomb.png", "bomb.png has 12000 x 12000 pixels, at most 25 megapixels"),
        (b"", "empty.png", "empty.png is empty"),
    ):
        before = state(page)["image"]
        chosen.set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
        page.wait_for_function(
            "(text) => document.querySelector('.ls-status.ls-wrong')?.textContent.includes(text)", arg=sentence
        )
        assert state(page)["image"] == before
    screenshot(page)
    for size in ((1, 1), (30, 20)):
        chosen.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture(size=size)})
        page.wait_for_function(
            "(size) => `${document.querySelector('.ls-image').width}` === size", arg=str(size[0]), timeout=20_000
        )
        settle(page)
        assert state(page)["image"].startswith("upload:")
        assert state(page)["objects"] == []
    page.locator(BOARD).click()
    settle(page)
    assert len(state(page)["objects"]) == 1


def test_pasting_an_image(page: Any) -> None:
    page.evaluate(
        """(content) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], 'x.png', { type: 'image/png' }));
          document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));
        }""",
        base64.b64encode(picture(size=(31, 21))).decode(),
    )
    page.wait_for_function("document.querySelector('.ls-image').width === 31")


def test_files_can_be_saved(page: Any, tmp_path: Path) -> None:
    page.get_by_role("button", name="Save and share").click()
    page.get_by_role("button", name="Make files of these masks").click()
    link = page.get_by_role("link", name="Download base_masks.zip").or_(page.locator("a[download='base_masks.zip']"))
    link.first.wait_for(timeout=30_000)
    names = page.locator("a[download]").evaluate_all("(links) => links.map((one) => one.download)")
    assert {"base_coco.json", "base_labels.png", "tuned_second_masks.zip", "prompts.json"} <= set(names)
    with page.expect_download() as download:
        link.first.click()
    path = tmp_path / "masks.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 3


def test_the_address_leads_back(page: Any, opened: Callable[..., Any]) -> None:
    clear(page)
    drag(page, 10, 5, 30, 30)
    # the box that was drawn, not one of those that the page began with
    page.wait_for_function("decodeURIComponent(location.search).includes('\"box\":[10,5,')")
    query = urllib.parse.urlsplit(page.url).query
    again = opened(f"?{query}")
    assert state(again)["objects"] == state(page)["objects"]
    assert drawn(again, 1) == drawn(page, 1)


def test_a_broken_address_is_told(opened: Callable[..., Any]) -> None:
    page = opened("?scene=%7B%22image%22%3A%22file%3A%2F%2F%2Fetc%2Fpasswd%22%7D")
    assert "not here any more" in page.locator(".ls-status").inner_text()
    assert state(page)["image"].startswith("test:")


def test_metrics_lead_to_the_image(page: Any, screenshot: Callable[[Any], Path]) -> None:
    page.get_by_role("tab", name="Metrics").click()
    page.get_by_role("heading", name="second").wait_for(timeout=30_000)
    page.locator(".ls-metrics svg").nth(2).wait_for()
    page.locator(".ls-metrics .pictures button").nth(2).wait_for()
    page.wait_for_function("[...document.images].every((one) => one.complete && one.naturalWidth)")
    screenshot(page)
    last = page.evaluate("[...document.querySelectorAll('.ls-strip button')].at(-1).dataset.id")
    page.locator(".ls-metrics .pictures button").nth(2).click()
    page.wait_for_function("(id) => loraSam.state().image === id", arg=last, timeout=20_000)
    page.locator(BOARD).wait_for(state="visible")


def test_everything_finds_masks_with_both_models(page: Any, screenshot: Callable[[Any], Path]) -> None:
    page.evaluate("loraSam.everything({ points_per_side: 4, predicted_iou: 0, stability: 0 })")
    page.wait_for_function("loraSam.state().everything", timeout=60_000)
    found = state(page)["everything"]
    assert all(len(column["masks"]) >= 1 for column in found["columns"])
    sent = json.loads(page.evaluate("loraSam.json()"))
    assert (sent["found"], sent["left_out_of"]) == (found["found"], found["columns"][1]["key"])
    screenshot(page)
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert state(page)["everything"] is None


def test_dark_mode(opened: Callable[..., Any], screenshot: Callable[[Any], Path]) -> None:
    page = opened(color_scheme="dark")
    colour = page.evaluate("getComputedStyle(document.querySelector('gradio-app, .gradio-container')).backgroundColor")
    assert "dark" in page.evaluate("document.body.className")
    ink = page.evaluate("getComputedStyle(document.querySelector('.ls-root')).color")
    assert colour != ink
    screenshot(page)


def test_on_a_phone(opened: Callable[..., Any], screenshot: Callable[[Any], Path]) -> None:
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    clear(page)
    page.locator(BOARD).scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, 32, 24))
    settle(page)
    assert len(state(page)["objects"][0]["points"]) == 1
    screenshot(page)


def test_the_page_is_named_and_its_controls_are_labelled(page: Any) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('.ls-root button, .ls-root input, .ls-root canvas, .ls-root img')]
          .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.alt)).map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    assert page.title() == "lora_sam: base and tuned"


@pytest.mark.parametrize("name", ["/etc/passwd", "app.log", "outputs/second/config.json"])
def test_no_file_of_the_machine_is_served(app: str, work: Path, name: str) -> None:
    path = name if name.startswith("/") else str(work / name)
    for address in (f"{app}gradio_api/file={path}", f"{app}file={path}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address, timeout=10)
        assert refused.value.code in (403, 404)


def test_other_sites_and_other_names_are_turned_away(app: str) -> None:
    body = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode()
    for headers, status in (
        ({"Origin": "https://example.org", "Content-Type": "application/json"}, 403),
        ({"Host": "rebound.example.org:80"}, 421),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                urllib.request.Request(f"{app}gradio_api/queue/join", data=body, headers=headers), timeout=10
            )
        assert refused.value.code == status
