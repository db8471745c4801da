"""Uploads, against a local hub."""

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marline.core import Manifest, RequestError, StageError, WrapConfig
from marline.wrap import wrap
from marline.wrap._fake_hub import FakeHub, fake_hub

Make = Callable[..., Manifest]
Configure = Callable[..., WrapConfig]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def test_the_whole_repository_is_uploaded(loaded: Make, config: Configure, hub: FakeHub, tmp_path: Path) -> None:
    manifest = wrap("tiny", config(push=True, repository="me/tiny"), loaded(tmp_path), tmp_path / "wrap")

    repository = manifest.path("repository")
    assert {"me/tiny": True} == hub.private
    assert {file.name: file.read_bytes() for file in repository.iterdir()} == hub.files["me/tiny"]
    assert f"{hub.url}/me/tiny/commit/1" == manifest.facts["pushed"]


def test_without_push_nobody_is_asked(loaded: Make, config: Configure, hub: FakeHub, tmp_path: Path) -> None:
    wrap("tiny", config(repository="me/tiny"), loaded(tmp_path), tmp_path / "wrap")

    assert [] == hub.paths


def test_push_needs_a_name(loaded: Make, config: Configure, hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"wrap.push=true needs wrap.repository=ORG/NAME"):
        wrap("tiny", config(push=True), loaded(tmp_path), tmp_path / "wrap")

    assert [] == hub.paths


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "does not accept the token"), (403, "may not write there"), (500, "HTTP 500, refused")]
)
def test_a_refusal_is_told_without_the_token(
    loaded: Make,
    config: Configure,
    hub: FakeHub,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
    reason: str,
) -> None:
    hub.status = status
    caplog.set_level(logging.DEBUG)

    with pytest.raises(StageError, match=f"me/tiny was not uploaded to {hub.url}") as refused:
        wrap("tiny", config(push=True, repository="me/tiny"), loaded(tmp_path), tmp_path / "wrap")

    assert reason in str(refused.value)
    assert hub.token not in f"{refused.value}{caplog.text}"
    assert [] == list((tmp_path / "wrap").iterdir())


def test_a_hub_out_of_reach_is_told(loaded: Make, config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", "a-token")

        with pytest.raises(StageError, match=r"cannot be reached \(ConnectError\); is HF_ENDPOINT right\?"):
            wrap("tiny", config(push=True, repository="me/tiny"), loaded(tmp_path), tmp_path / "wrap")
