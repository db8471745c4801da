"""The page in a real browser: on a desktop, a phone and paper nothing is cut, and every link leads somewhere."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.browser
Make = Callable[..., Path]
PAPER = 688  # px: A4 less its margins
CUT = """() => [...document.querySelectorAll('table, pre, figure, p, svg')]
    .filter(one => one.getClientRects().length && one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.className + ' ' + one.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as programs:
        browser = programs.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("width", [1280, 375])
def test_the_page_never_scrolls_sideways(make: Make, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((make(price=0.5) / "report.html").as_uri())

    assert width == page.evaluate("document.documentElement.scrollWidth")


def test_on_paper_nothing_is_cut(make: Make, page: Page) -> None:
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    page.goto((make(price=0.5) / "report.html").as_uri())

    assert [] == page.evaluate(CUT)


def test_every_link_of_the_contents_leads_to_its_section(make: Make, page: Page) -> None:
    page.goto((make() / "report.html").as_uri())
    links = {link.inner_text(): link.get_attribute("href") for link in page.query_selector_all("nav a")}
    heads = {
        f"#{section.get_attribute('id')}": section.query_selector("h2") for section in page.query_selector_all("section[id]")
    }

    assert list(links.values()) == [href for href in heads if href != "#gpu"]
    assert list(links) == [head.inner_text() for head in heads.values() if head is not None]
