"""The report of a real run, in a real browser."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

pytestmark = [pytest.mark.e2e, pytest.mark.browser]
SECTIONS = (
    *("Latency against load", "Goodput and knee", "Chosen beside default", "Replicas", "Cost", "Where time goes", "Resources"),
    *("Other objectives and loads", "More workers", "Cold start", "How it was found", "What bounds each configuration"),
    *("Use it", "Trials", "Service curve", "Parity", "Stages", "What was not tested", "Provenance"),
)
PICTURES = ("throughput_latency", "goodput", "batch_and_delay", "service_curve")
MOST_BYTES = 5_000_000
PAPER_PX = 688  # A4 less its margins


@pytest.fixture(scope="module")
def folder(smoke: Any) -> Path:
    assert 0 == smoke.code, smoke.err
    found: Path = smoke.run / "report"
    return found


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    if not chromium.exists():
        pytest.skip(f"there is no browser: {chromium} is not there; install Debian's chromium, or set CHROMIUM")
    with sync_playwright() as programs:
        browser = programs.chromium.launch(executable_path=chromium)
        yield browser.new_page()
        browser.close()


@pytest.mark.parametrize(("media", "width"), [("screen", 1280), ("screen", 375), ("print", PAPER_PX)])
def test_the_page_is_whole_and_quiet_on_a_desktop_a_phone_and_paper(folder: Path, page: Page, media: Any, width: int) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(media=media)
    page.goto((folder / "report.html").as_uri())

    assert [*SECTIONS] == [name for name in page.locator("main > section h2").all_inner_texts() if name != "GPU"]
    assert width == page.evaluate("document.documentElement.scrollWidth")
    shown = page.locator("main svg:visible")
    assert len(PICTURES) <= shown.count()
    assert all((box := shown.nth(place).bounding_box()) and box["width"] > 200 for place in range(shown.count()))
    assert ([], [(folder / "report.html").as_uri()]) == (said, [url for url in asked if not url.startswith("data:")])
    if media == "print":
        edges = page.evaluate("[...document.querySelectorAll('table, pre, svg')].map(one => one.getBoundingClientRect().right)")
        assert [] == [edge for edge in edges if edge > PAPER_PX + 1]
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF-")


def test_every_picture_lies_beside_the_page_in_both_forms(folder: Path) -> None:
    for name in PICTURES:
        assert "</svg>" in (folder / f"{name}.svg").read_text()
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < MOST_BYTES


def test_what_the_twin_says_beyond_the_choice_is_in_the_report_and_said_to_be_simulated(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    if not report["chosen"]["rps"]:
        assert report["outlook"] is None
        return

    assert [0.5, 1.0, 1.5] == [one["factor"] for one in report["outlook"]["load"]]
    assert {"simulated"} == {part["origin"] for part in report["breakdown"]["within"]}
    assert {"measured"} == {part["origin"] for part in report["breakdown"]["parts"] if part["part"] != "wait"}
    assert "How the wait divides is simulated" in (folder / "report.html").read_text()
