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
    chromium = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    if not chromium.exists():
        pytest.skip(f"there is no browser: {chromium} is not there; install Debian's chromium, or set CHROMIUM")
    with sync_playwright() as programs:
        browser = programs.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture(scope="module")
def priced(make_in: Callable[[Path], Make], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_in(tmp_path_factory.mktemp("priced"))(price=0.5)


@pytest.mark.parametrize("width", [1280, 375])
def test_the_page_never_scrolls_sideways(priced: Path, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((priced / "report.html").as_uri())

    assert width == page.evaluate("document.documentElement.scrollWidth")


def test_on_paper_nothing_is_cut(priced: Path, page: Page) -> None:
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    page.goto((priced / "report.html").as_uri())

    assert [] == page.evaluate(CUT)


def test_every_link_of_the_contents_leads_to_its_section(usual: Path, page: Page) -> None:
    page.goto((usual / "report.html").as_uri())
    links = {link.inner_text(): link.get_attribute("href") for link in page.query_selector_all("nav a")}
    heads = {
        f"#{section.get_attribute('id')}": section.query_selector("h2") for section in page.query_selector_all("section[id]")
    }

    assert list(links.values()) == [href for href in heads if href != "#gpu"]
    assert list(links) == [head.inner_text() for head in heads.values() if head is not None]
