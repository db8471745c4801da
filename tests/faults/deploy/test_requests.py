"""Requests that are too many, that nobody waits for any more, or that are wrong."""

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from marline.loadtest import Load, Target, measure

Obey = Callable[..., Any]
Until = Callable[..., float]
FAST_S = 0.05


def raw(model: Any, order: dict[str, Any]) -> tuple[tuple[str, int], bytes]:
    """Where a request goes and its bytes."""
    address = urlsplit(model.server.client.inference_url)
    body = json.dumps(order)
    lines = [
        f"POST /predictions/{model.name} HTTP/1.1",
        f"Host: {address.netloc}",
        f"Authorization: Bearer {model.server.client.tokens.inference}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    assert address.hostname
    assert address.port
    return (address.hostname, address.port), "\r\n".join([*lines, "", body]).encode()


async def at_once(model: Any, count: int) -> list[tuple[int, float]]:
    """Status and seconds of each of `count` requests on connections of their own, opened before."""
    address, request = raw(model, {"n": 1, "sleep_s": FAST_S})
    connections = [await asyncio.open_connection(*address) for _ in range(count)]

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, float]:
        began = time.monotonic()
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), 8)
        writer.close()
        return int(line.split()[1]), time.monotonic() - began

    return list(await asyncio.gather(*(one(*connection) for connection in connections)))


@pytest.mark.faults("F11", "50 requests at once, jobQueueSize 4", "each 200 or 503; a 503 in 50 ms", seconds=10)
def test_f11_what_the_queue_cannot_hold_is_refused_at_once(obey: Obey) -> None:
    model = obey("queue", jobQueueSize=4)
    model.ask_all([{"n": 1}] * 10)  # Java has compiled what it refuses with by then

    answers = asyncio.run(at_once(model, 50))

    counted = Counter(status for status, _ in answers)
    assert 50 == counted[200] + counted[503], counted
    assert counted[200] >= 5
    assert counted[503] >= 1
    assert max(seconds for status, seconds in answers if status == 503) < 0.05


@pytest.mark.faults("F11", "a load test that overflows the queue", "what was refused is named overload", seconds=20)
def test_f11_a_load_test_names_overload(obey: Obey, tmp_path: Path) -> None:
    model = obey("full", jobQueueSize=4)
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1, "sleep_s": 0.3}))
    load = Load(rps=30, seconds=0.5, warmup_s=0, arrivals="constant", seed=0, timeout_s=7)
    target = Target(url=f"{model.server.client.inference_url}/predictions/full", token=model.server.client.tokens.inference)
    assert {"HTTP 503 overload"} == set(measure(target, [order], load, tmp_path / "load").errors)


@pytest.mark.faults(
    "F12", "100 clients leave after sending", "READY, later requests 200; the wasted work is counted", seconds=20
)
def test_f12_clients_that_leave_do_no_harm_and_what_was_done_for_them_is_counted(obey: Obey, until: Until) -> None:
    model = obey("left")
    address, request = raw(model, {"n": 1})
    before = computed(model.server.batches)

    for _ in range(100):
        with socket.create_connection(address, 5) as connection:
            connection.sendall(request)

    until(lambda: computed(model.server.batches) - before == 100, 10, "all 100 were computed, for nobody")
    assert model.serves()
    assert 1 == model.status.ready


@pytest.mark.faults("F13", "one poison item in a batch of 8", "it alone gets a 4xx, the others their right answers", seconds=10)
def test_f13_a_poison_item_fails_alone(obey: Obey) -> None:
    model = obey("poison", batch_size=8, delay_ms=2000)
    before = computed(model.server.batches)
    orders: list[dict[str, Any]] = [{"n": n} for n in range(8)]
    orders[3]["refuse"] = "poison"

    answers = model.ask_all(orders)

    assert [200, 200, 200, 400, 200, 200, 200, 200] == [answer.status for answer in answers]
    assert [0, 1, 2, 4, 5, 6, 7] == [answer.body["output"]["n"] for answer in answers if answer.status == 200]
    assert "poison" == answers[3].body["message"]
    assert 7 == computed(model.server.batches) - before


def computed(batches: Path) -> int:
    """How many requests the workers have computed."""
    return sum(int(line.split(",")[1]) for file in batches.glob("*.csv") for line in file.read_text().splitlines())
