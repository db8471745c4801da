"""A stand-in for TorchServe's context, for running a handler outside a server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class FakeContext:
    """What our handler uses of TorchServe's context, with what it set kept for inspection."""

    model_dir: Path
    serialized_file: str | None = None
    batch_size: int = 1
    model_yaml_config: Mapping[str, Any] = field(default_factory=dict)
    statuses: dict[int, tuple[int, str]] = field(default_factory=dict)
    content_types: dict[int, str] = field(default_factory=dict)
    headers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    model_name: str = "model"
    metrics: Any = None  # TorchServe's metrics cache

    @property
    def system_properties(self) -> dict[str, Any]:
        return {"model_dir": str(self.model_dir), "gpu_id": None, "batch_size": self.batch_size}

    @property
    def manifest(self) -> dict[str, Any]:
        return {"model": {"serializedFile": self.serialized_file} if self.serialized_file else {}}

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.statuses[idx] = (code, phrase)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_types[idx] = value

    def get_request_id(self, idx: int = 0) -> str:
        return f"{idx:08x}"

    def get_request_header(self, idx: int, key: str) -> Any:
        return self.get_all_request_header(idx).get(key)

    def get_all_request_header(self, idx: int) -> Mapping[str, Any]:
        return self.headers.get(idx, {})
