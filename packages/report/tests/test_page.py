import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.report._render import plain

Make = Callable[..., Path]
PAGES = ["report.html", "report.md"]
EMULATED = {"kind": "emulated", "name": "rn50_t4_pytorch_eager_amp", "time_scale": 4.0}
HOSTILE = '<script>alert(1)</script> | `x` [a](javascript:b) ![c](d) "quoted"\nsecond line'


class Elements(HTMLParser):
    """Collects every element with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_random_weights_are_stamped_on_every_file(make: Make) -> None:
    folder = make(facts={"load": {"weights": {"kind": "random", "detail": "seed 0"}}})

    for page in [*PAGES, "report.json"]:
        assert "RANDOM WEIGHTS: answers mean nothing, speed does" in (folder / page).read_text()


def test_emulation_is_stamped_on_every_file_with_its_key_and_time_scale(make: Make) -> None:
    folder = make(accelerator=EMULATED)

    for page in [*PAGES, "throughput_latency.svg"]:
        assert "EMULATED rn50_t4_pytorch_eager_amp" in (folder / page).read_text()
        assert "time scale 4×" in (folder / page).read_text()
    assert "EMULATED rn50_t4_pytorch_eager_amp" in json.loads((folder / "report.json").read_text())["verdict"]["marks"][0]


def test_a_published_model_on_real_hardware_wears_no_stamp(usual: Path) -> None:
    assert not [page for page in PAGES if re.search("RANDOM|EMULATED", (usual / page).read_text())]


def test_the_page_asks_the_network_for_nothing(usual: Path) -> None:
    page = (usual / "report.html").read_text()
    elements = Elements(page).found
    sources = [value for _, attrs in elements for key, value in attrs.items() if key in {"src", "href", "xlink:href", "action"}]

    assert len(page) < 1_000_000
    assert [] == [source for source in sources if not (source or "").startswith(("data:,", "#"))]
    assert [] == re.findall(r"https?://|@import", page)
    assert [] == [tag for tag, _ in elements if tag in {"script", "iframe", "object", "embed", "form"}]
    assert "default-src 'none'" in page


def test_no_two_elements_share_an_id(usual: Path) -> None:
    ids = [attrs["id"] for _, attrs in Elements((usual / "report.html").read_text()).found if "id" in attrs]
    clashing = {name for name in ids if ids.count(name) > 1}

    assert set() == clashing


def test_hostile_words_stay_words(make: Make) -> None:
    weights = {"kind": "file", "detail": HOSTILE}
    folder = make(
        facts={"load": {"weights": weights, "source": HOSTILE}}, warnings=[HOSTILE], accelerator={**EMULATED, "name": HOSTILE}
    )
    page, words = (folder / "report.html").read_text(), (folder / "report.md").read_text()

    assert [] == [tag for tag, _ in Elements(page).found if tag == "script"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert [] == re.findall(r"<script|(?<!\\)\[a\]|(?<!\\)`x", words)


@given(st.text())
def test_no_text_can_leave_its_table_cell_in_markdown(text: str) -> None:
    cell = plain(text)

    assert [] == re.findall(r"[<>\n\r]|(?<!\\)(?:\\\\)*[|`\[\]]", cell)


def test_tables_have_as_many_cells_as_heads_in_markdown(make: Make) -> None:
    words = (make(warnings=[HOSTILE]) / "report.md").read_text()
    tables = re.findall(r"(?:^\|.*\n)+", words, re.MULTILINE)
    widths = [{len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} for table in tables]

    assert 15 == len(tables)
    assert {1} == {len(width) for width in widths}


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>|[|]", " ", page).split())


def test_parity_is_a_table_of_cases_and_places(make: Make) -> None:
    points = [
        {"case": case, "batch": 2, "stage": stage, "max_abs": most, "max_rel": 0.0}
        for case, stage, most in (
            ("batch 2", "exported", 0.0),
            ("batch 2, zeros", "exported", 2.5e-7),
            ("batch 2", "C++", 1e-6),
            ("a short text", "reloaded", 3e-6),
        )
    ]
    folder = make(facts={"export": {"parity": points}})

    for page in PAGES:
        text = words_of((folder / page).read_text())
        assert re.search(
            r"case exported C\+\+ reloaded (--- -*: -*: -*: )?batch 2 0 1\.0e-6 – batch 2, zeros 2\.5e-7 – –", text
        )
        assert "a short text – – 3.0e-6" in text


def test_what_was_not_proven_and_what_looked_at_values_is_said(make: Make) -> None:
    told = {"skipped": ["C++: there is no compiler c++ here"], "suspects": [f"net.py:{line}: if x" for line in range(1, 6)]}
    folder = make(facts={"export": told})

    for page in PAGES:
        text = words_of((folder / page).read_text())
        assert (
            "the code looked at values in net.py:1: if x, net.py:2: if x, net.py:3: if x. Not proven: C++: there is no" in text
        )


def test_a_model_that_is_served_without_a_graph_says_so(make: Make) -> None:
    warning = "export.method=none: the eager model is served"
    told = {"method": "none", "reason": warning, "parity": [], "warnings": [warning]}
    folder = make(facts={"export": told})

    for page in PAGES:
        text = words_of((folder / page).read_text())
        assert f"not idle {'- ' if page == 'report.md' else ''}{warning}" in text
        assert f"Parity Served without a graph: {warning}. 6 golden answers were kept" in text
        assert "case" not in text.partition("Parity")[2].partition("Stages")[0]
    report = json.loads((folder / "report.json").read_text())
    assert warning in report["warnings"]
    assert ("none", warning, []) == tuple(report["parity"][key] for key in ("method", "reason", "parity"))


def test_both_pages_show_invalid_trials_with_their_reason(usual: Path) -> None:
    for page in PAGES:
        assert "INVALID: send lag p99 11.8 ms is over 3.7 ms: the generator was disturbed" in (usual / page).read_text()
    assert "invalid trial" in (usual / "throughput_latency.svg").read_text()


def test_both_pages_say_what_came_in_place_of_answers_and_what_was_computed_for_nobody(make: Make, usual: Path) -> None:
    trials = [{**trial, "error_classes": {"HTTP 507 oom": 3, "Timeout": 2}, "wasted": 2} for trial in tune_trials(usual)]

    folder = make("lossy", trials=trials)

    for page in PAGES:
        assert "3 × HTTP 507 oom; 2 × Timeout; 2 computed for nobody" in (folder / page).read_text()


def test_both_pages_hold_the_values_to_use_and_what_was_not_tested(usual: Path) -> None:
    assert "url=resnet50.mar&batch_size=4&max_batch_delay=2&synchronous=true" in (usual / "report.md").read_text()
    assert "url=resnet50.mar&amp;batch_size=4&amp;max_batch_delay=2&amp;synchronous=true" in (usual / "report.html").read_text()
    for page in PAGES:
        assert "batchSize: 4\nmaxBatchDelay: 2" in (usual / page).read_text()
        assert "longer than 40 s at a stretch" in (usual / page).read_text()


def test_a_run_whose_every_trial_was_lost_or_invalid_still_has_a_picture(make: Make, usual: Path) -> None:
    lost = json.loads((usual / "report.json").read_text())["trials"][20]
    folder = make(
        model="again", trials=[lost, {**lost, "valid": False, "invalid_reason": "the worker restarted", "mean_batch": None}]
    )

    assert "∞" in (folder / "throughput_latency.svg").read_text()


@pytest.mark.parametrize(("percentile", "name"), [(50, "p50"), (90, "p95"), (99.9, "p99")])
def test_the_picture_shows_the_percentile_the_slo_is_about_or_the_next_one_up(make: Make, percentile: float, name: str) -> None:
    folder = make(slo={"percentile": percentile, "ms": 183.0, "origin": "config"})

    assert f"{name} latency, ms" in (folder / "throughput_latency.svg").read_text()
    assert f"SLO p{percentile:g} ≤ 183 ms" in (folder / "throughput_latency.svg").read_text()


def test_what_a_handler_does_not_report_is_not_shown_as_measured(make: Make, usual: Path) -> None:
    curve = [
        {"batch": batch, "samples": 30, "p50_ms": ms, "p95_ms": ms, "pre_ms": None, "inference_ms": None, "post_ms": None}
        for batch, ms in ((1, 3.2), (8, 3.3))
    ]
    trials = [{**trial, "mean_batch": None} for trial in tune_trials(usual)]
    reason = "the handler answers by itself"
    told = {"load": {"parameters": None}, "export": {"method": "none", "reason": reason, "parity": [], "warnings": [reason]}}

    folder = make("own", facts=told, curve=curve, trials=trials)

    for page in PAGES:
        text = words_of((folder / page).read_text())
        assert "measured around it by TorchServe without queueing: an item in a batch of 8 costs 0.412 ms" in text
        assert "Its stages are not known, because the handler does not report its batches." in text
        assert "Mean batches were not measured." in text
        assert "torchvision:resnet50, image-classification, parameters not counted" in text
        assert f"Served without a graph: {reason}." in text
    drawn = (folder / "report.html").read_text()
    assert "the whole handler" in drawn
    assert [] == [name for name in ("preprocess</text>", "postprocess</text>") if name in drawn]


def tune_trials(usual: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((usual / "report.json").read_text())["trials"]
    return found
