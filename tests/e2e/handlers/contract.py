"""A handler without anything of ours: shows what TorchServe itself does. Answers each request with the size of its batch.

What is unusual a request asks for as JSON: `sleep_s`, `raise` (an exception's text), `memory`, `answers` (returned so),
`code` and `phrase`; at its start, `order.json` in the archive asks for it.
"""

import json
import time
from pathlib import Path
from typing import Any


def handle(data: Any, context: Any) -> Any:
    """Start where there is no data, else answer a batch."""
    if data is None:
        _obey(json.loads(Path(context.system_properties["model_dir"], "order.json").read_text()))
        return None
    orders = [_order(row) for row in data]
    for order in orders:
        _obey(order)
    for order in orders:
        if "answers" in order:
            return order["answers"]
    for index, order in enumerate(orders):
        if "code" in order:
            context.set_response_status(code=order["code"], phrase=order.get("phrase", ""), idx=index)
    return [str(len(data))] * len(data)


def _order(row: Any) -> dict[str, Any]:
    body = row.get("data") or row.get("body") or {}
    return json.loads(bytes(body)) if isinstance(body, (bytes, bytearray)) else body


def _obey(order: dict[str, Any]) -> None:
    time.sleep(order.get("sleep_s", 0))
    if "memory" in order:
        raise MemoryError
    if "raise" in order:
        raise RuntimeError(order["raise"])
