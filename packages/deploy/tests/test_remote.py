import json
from pathlib import Path

import pytest

from marline.core import RequestError
from marline.deploy._remote import remote_client

ADDRESSES = {"MARLINE_MANAGEMENT_URL": "https://models.example:8081", "MARLINE_INFERENCE_URL": "http://127.0.0.1:8080/"}
KEYS = {"MARLINE_MANAGEMENT_TOKEN": "m-secret", "MARLINE_INFERENCE_TOKEN": "i-secret"}


def key_file(folder: Path, mode: int = 0o600) -> Path:
    file = folder / "key_file.json"
    file.write_text(json.dumps({"management": {"key": "m-secret"}, "inference": {"key": "i-secret"}, "API": {"key": "a"}}))
    file.chmod(mode)
    return file


def test_keys_come_from_the_environment_or_from_a_file_of_ones_own(tmp_path: Path) -> None:
    clients = [remote_client(ADDRESSES | KEYS), remote_client(ADDRESSES | {"MARLINE_TOKENS_FILE": str(key_file(tmp_path))})]

    for client in clients:
        assert ("m-secret", "i-secret") == (client.tokens.management, client.tokens.inference)
        assert ("https://models.example:8081", "http://127.0.0.1:8080") == (client.management_url, client.inference_url)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"MARLINE_MANAGEMENT_URL": ""}, "MARLINE_MANAGEMENT_URL of the environment is no"),
        ({"MARLINE_INFERENCE_URL": "models.example:8080"}, "MARLINE_INFERENCE_URL of the environment is no"),
        ({"MARLINE_INFERENCE_URL": "https://models.example:99999"}, "MARLINE_INFERENCE_URL of the environment is no"),
        ({"MARLINE_MANAGEMENT_URL": "https://[models.example"}, "MARLINE_MANAGEMENT_URL of the environment is no"),
        ({"MARLINE_MANAGEMENT_URL": "https://me:m-secret@models.example"}, "MARLINE_MANAGEMENT_URL of the environment is no"),
        ({"MARLINE_MANAGEMENT_URL": "http://models.example:8081"}, "would travel to models.example in the clear; use https"),
        ({"MARLINE_INFERENCE_TOKEN": ""}, "no MARLINE_INFERENCE_TOKEN, and no MARLINE_TOKENS_FILE"),
        ({"MARLINE_TOKENS_FILE": "/no/such/file"}, r"is not a copy of TorchServe's key_file\.json \(FileNotFoundError\)"),
    ],
)
def test_what_is_missing_or_unsafe_is_refused_without_a_word_of_the_keys(changed: dict[str, str], why: str) -> None:
    with pytest.raises(RequestError, match=why) as raised:
        remote_client(ADDRESSES | KEYS | changed)
    assert "secret" not in str(raised.value)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"can be read by others \(mode 640\); chmod 600"):
        remote_client(ADDRESSES | {"MARLINE_TOKENS_FILE": str(key_file(tmp_path, 0o640))})
