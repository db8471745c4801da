import json
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marline.core import ServerError
from marline.deploy import Client, Tokens
from marline.deploy._tokens import read_tokens, renewing, write_private

REFUSAL = {"code": 400, "type": "InvalidKeyException", "message": "Token either incorrect, expired, or not provided correctly"}


class Keys:
    """TorchServe's tokens: one key of a kind, in a file, another one each time somebody asks with the API key."""

    def __init__(self, file: Path, life_s: float = 3600) -> None:
        self.file, self.life_s, self.turn, self.seen = file, life_s, 0, list[str]()
        self.keys = {"management": "m0", "inference": "i0", "API": "a"}
        self.write()

    def write(self) -> None:
        expiry = datetime.fromtimestamp(time.time() + self.life_s, UTC).isoformat().replace("+00:00", "123Z")  # nanoseconds
        told: dict[str, Any] = {kind: {"key": key, "expiration time": expiry} for kind, key in self.keys.items()}
        self.file.write_text(json.dumps(told))

    def renew(self, kind: str) -> None:
        self.turn += 1
        self.keys[kind] = f"{kind[0]}{self.turn}"
        self.write()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        given = request.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append(given)
        if request.url.path == "/token":
            if given != self.keys["API"]:
                return httpx2.Response(400, json=REFUSAL)
            self.renew(request.url.params["type"])
            return httpx2.Response(200, content=b"\n")
        kind = "inference" if request.url.path.startswith("/predictions") else "management"
        if given != self.keys[kind]:
            return httpx2.Response(400, json=REFUSAL)
        return httpx2.Response(200, json=[])


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "key_file.json")


@pytest.fixture
def client(keys: Keys) -> Client:
    return Client("http://127.0.0.1:1", "http://127.0.0.1:2", read_tokens(keys.file), httpx2.MockTransport(keys))


def test_a_renewal_uses_the_api_key_and_is_told_to_those_who_follow(client: Client, keys: Keys) -> None:
    heard: list[str] = []
    client.tokens.followers.append(lambda: heard.append(client.tokens.inference))

    client.renew()

    assert ["a", "a"] == keys.seen
    assert ("m1", "i2") == (client.tokens.management, client.tokens.inference)
    assert ["i2"] == heard


def test_a_request_whose_key_was_renewed_meanwhile_is_sent_again_with_the_new_one(client: Client, keys: Keys) -> None:
    keys.renew("inference")  # by another process, say

    assert 200 == client.predict("m", b"x", "image/png").status
    assert ["i0", "i1"] == keys.seen


def test_a_key_that_is_wrong_for_good_is_refused_once(client: Client, keys: Keys) -> None:
    keys.keys["inference"] = "another"

    assert 400 == client.predict("m", b"x", "image/png").status
    assert ["i0"] == keys.seen


def test_without_a_key_file_there_is_nothing_to_send_again_with(keys: Keys) -> None:
    client = Client("http://127.0.0.1:1", "http://127.0.0.1:2", Tokens("no", "no"), httpx2.MockTransport(keys))

    assert 400 == client.predict("m", b"x", "image/png").status


def test_a_refused_request_waits_for_the_renewal_that_is_under_way(client: Client, keys: Keys) -> None:
    with client.tokens.lock:  # as while renewing
        keys.renew("inference")
        keys.file.write_text("{")  # Java truncates the file before it writes
        replies: list[int] = []
        sender = threading.Thread(target=lambda: replies.append(client.predict("m", b"x", "image/png").status))
        sender.start()
        sender.join(0.2)
        assert [] == replies
        keys.write()
    sender.join(5)

    assert [200] == replies


def test_tokens_are_renewed_when_two_thirds_of_their_life_are_over(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "key_file.json", life_s=1.5)
    client = Client("http://127.0.0.1:1", "http://127.0.0.1:2", read_tokens(keys.file), httpx2.MockTransport(keys))

    with renewing(client.tokens, 1.5, client.renew):
        time.sleep(3.5)

    assert 2 <= client.tokens.renewals <= 6
    assert 200 == client.predict("m", b"x", "image/png").status


def test_a_renewal_that_fails_is_tried_again(client: Client, keys: Keys) -> None:
    failed: list[bool] = []

    def once() -> None:
        failed.append(True)
        if len(failed) == 1:
            raise ServerError("busy")
        client.renew()

    client.tokens.expires_s = 0
    with renewing(client.tokens, 3.0, once):
        time.sleep(1)

    assert 2 == len(failed)
    assert 1 == client.tokens.renewals


def test_new_tokens_that_cannot_be_read_are_an_error(client: Client, keys: Keys) -> None:
    keys.write = lambda: None  # type: ignore[method-assign]
    keys.file.write_text("{")

    with pytest.raises(ServerError, match=r"new tokens cannot be read from .*key_file\.json"):
        client.renew()


def test_keys_are_not_shown() -> None:
    assert "s3cret" not in repr(Client("http://a", "http://b", Tokens("s3cret-m", "s3cret-i", "s3cret-a")))


def test_a_private_file_is_its_owner_s_alone_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "token.json"
    for text in ("one", "two"):
        write_private(file, text)

    assert "two" == file.read_text()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert [file] == [*tmp_path.iterdir()]
