from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import marline.telemetry
from marline.telemetry import Settings, enabled, read_settings, write_settings

Program = Callable[..., Any]
ASK = """
import marline_tracker as t
settings = t.Settings("http://127.0.0.1:9/reports/tiny", "tiny", "minimal")
print(t.enabled(settings, server=False), t.enabled(settings, server=True))
"""


@pytest.mark.parametrize(
    ("variables", "user", "operator"),
    [
        ({}, True, True),
        ({"DO_NOT_TRACK": "1"}, False, True),
        ({"DO_NOT_TRACK": "true"}, False, True),
        ({"DO_NOT_TRACK": "0"}, True, True),
        ({"HF_HUB_OFFLINE": "1"}, False, True),
        ({"HF_HUB_DISABLE_TELEMETRY": "YES"}, False, True),
        ({"MARLINE_TELEMETRY": "off"}, False, False),
        ({"MARLINE_TELEMETRY": "on"}, True, True),
        ({"MARLINE_TELEMETRY": "on", "DO_NOT_TRACK": "1"}, False, True),
        ({"PYTEST_CURRENT_TEST": "test_a.py::test_b (call)"}, False, True),
        ({"PYTEST_CURRENT_TEST": "test_a.py::test_b (call)", "MARLINE_TELEMETRY": "on"}, True, True),
    ],
)
def test_the_user_decides_at_home_and_the_operator_on_a_server(
    program: Program, variables: dict[str, str], user: bool, operator: bool
) -> None:
    assert [f"{user} {operator}"] == program(ASK, **variables).out


ODD = [None, "", "collector", "ftp://host/x", "http://", "http://[bad", "http://host:99999", "http://host:0", 7]
ODD += ["http://ada:word@host/", "http://host/?key=1", "http://host/#here", "http://host/a b", "http://hôst/", "http://host/\n"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/reports/tiny", "https://[::1]/r", "HTTPS://Host.example/a%20b/@me"])
def test_an_address_is_an_address(url: str) -> None:
    assert enabled(Settings(url, "tiny", "minimal"), server=True)


@pytest.mark.parametrize("url", ODD)
def test_what_is_no_address_turns_reporting_off(url: Any) -> None:
    assert not enabled(Settings(url, "tiny", "minimal"), server=True)


def test_settings_survive_their_file(tmp_path: Path) -> None:
    settings = Settings("https://collector.example/reports/tiny", "tiny", "full", 0.5, "1.2")

    write_settings(settings, tmp_path / "tracker.json")

    assert settings == read_settings(tmp_path / "tracker.json")


@given(text=st.text() | st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner)).map(str))
def test_no_file_is_bad_enough_to_raise_or_report(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "tracker.json"
    file.write_text(text, encoding="utf-8")

    assert not enabled(read_settings(file), server=True)


def test_share_and_version_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "tracker.json").write_text('{"collector_url": null, "model": "m", "detail": "minimal"}')

    assert Settings(None, "m", "minimal", 1.0, None) == read_settings(tmp_path / "tracker.json")


WRONG = ['{"collector_url": "no address", "model": "m", "detail": "full"}', "[]", '{"model": "m"}']
WRONG += [
    '{"collector_url": null, "model": ["m"], "detail": "full"}',
    '{"collector_url": null, "model": "m", "detail": "full", "version": []}',
]
WRONG += [f'{{"collector_url": null, "model": "m", "detail": "full", "sample_rate": {rate}}}' for rate in (0, 2, "NaN", '"x"')]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_turns_reporting_off_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    (tmp_path / "tracker.json").write_text(text)

    settings = read_settings(tmp_path / "tracker.json")

    assert settings.collector_url is None
    assert "nothing is reported" in caplog.text


def test_a_missing_file_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_settings(tmp_path / "tracker.json").collector_url is None
    assert "" == caplog.text


def test_public_names() -> None:
    assert sorted(name for name in vars(marline.telemetry) if not name.startswith("_")) == sorted(marline.telemetry.__all__)
