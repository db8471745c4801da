"""Reads a `config.properties` of TorchServe 0.12, ours or anyone's, for what makes a server unsafe or surprising.

The reasons are its documentation's, its source's and its published advisories'.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ADDRESSES = ("inference_address", "management_address", "metrics_address", "grpc_inference_address", "grpc_management_address")
ANYWHERE = ("https://example.org/any.mar", "http://127.0.0.1:1/any.mar", "file:///etc/any.mar")
OUR_NAMES = {"disable_token_authorization": "deploy.tokens", "inference_address": "deploy.bind"}


@dataclass(frozen=True, slots=True)
class Risk:
    """One setting and why it is unsafe; without a name it is only surprising, and nothing is refused for it."""

    setting: str
    why: str
    remedy: str
    name: str = ""


def parse_properties(text: str) -> dict[str, str]:
    """The `key=value` lines of a Java properties file, as far as TorchServe's own documentation writes them."""
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    pairs = [re.split(r"\s*[=:]\s*", line, maxsplit=1) for line in lines if line and line[0] not in "#!"]
    return {key: "".join(value) for key, *value in pairs}


def risks(told: Mapping[str, str]) -> Iterator[Risk]:
    """All that is unsafe, then all that is surprising."""
    yield from _tokens(told)
    yield from _allowed_urls(told)
    yield from _workflow_store(told)
    for setting, (surprises, why, remedy) in SURPRISES.items():
        if surprises(told.get(setting, "")):
            yield Risk(_shown(told, setting), why, remedy)


def _tokens(told: Mapping[str, str]) -> Iterator[Risk]:
    public = [name for name in ADDRESSES if name in told and not _is_loopback(told[name])]
    if _is_true(told.get("disable_token_authorization", "")):
        setting = _shown(told, "disable_token_authorization")
        yield Risk(setting, "whoever reaches a port may ask, register and remove", "set it to false", "no_tokens")
        for name in public:
            yield Risk(_shown(told, name), "the network reaches it, without a token", "use 127.0.0.1", "public_without_tokens")
        return
    for name in public:
        yield Risk(_shown(told, name), "the network reaches it, and tokens travel in clear text", "put TLS before it")


def _allowed_urls(told: Mapping[str, str]) -> Iterator[Risk]:
    patterns = [pattern for pattern in told.get("allowed_urls", "").split(",") if pattern] or ["file://.*|http(s)?://.*"]
    for pattern in patterns:
        try:
            admits = [url for url in ANYWHERE if re.fullmatch(pattern, url)]
        except re.error:
            admits = ["what nobody can tell"]
        if admits:
            shown = _shown(told, "allowed_urls")
            remedy = "allow the model store alone: file:///STORE/.*"
            yield Risk(shown, f"code is registered from {admits[0]} (CVE-2023-43654)", remedy, "open_urls")
            return


def _workflow_store(told: Mapping[str, str]) -> Iterator[Risk]:
    where = told.get("workflow_store") or told.get("model_store")
    writable = where is None or (Path(where).exists() and Path(where).stat().st_mode & 0o222)
    if writable:
        why = "a workflow is downloaded into it by URL, whatever enable_model_api says"
        yield Risk(_shown(told, "workflow_store"), why, "name an empty folder of mode 0500", "writable_workflows")


def _shown(told: Mapping[str, str], setting: str) -> str:
    return f"{setting}={told[setting]}" if setting in told else f"{setting}, which is not set"


def _is_loopback(address: str) -> bool:
    host = re.sub(r"^https?://", "", address)
    return host.startswith(("127.", "localhost", "unix:", "[::1]"))


def _is_true(value: str) -> bool:
    return value.lower() == "true"


def _is_unset(value: str) -> bool:
    return not value


SURPRISES = {
    "enable_model_api": (_is_true, "models can be registered and removed while it serves", "true only while you deploy"),
    "install_py_dep_per_model": (_is_true, "an archive has pip install what it names", "bake the environment at build time"),
    "use_env_allowed_urls": (_is_true, "the environment may open allowed_urls", "leave it out"),
    "enable_envvars_config": (_is_true, "TS_* variables win over this file", "leave it out"),
    "blacklist_env_vars": (_is_unset, "every variable of the server reaches model code", "(?i).*(key|token|secret|password).*"),
    "token_expiration_min": (_is_unset, "tokens end after 60 minutes, then every answer is 400", "set it, and renew"),
    "job_queue_size": (_is_unset, "100 requests may wait per model, more are answered 503", "size it by the latency objective"),
    "metrics_mode": (lambda value: value != "prometheus", "/metrics stays empty", "prometheus"),
    "limit_max_image_pixels": (lambda value: value.lower() == "false", "a small image may unpack to gigabytes", "true"),
}
