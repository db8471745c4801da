"""What becomes of queued events: batches, refusals, silence and full queues."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.telemetry import FakeCollector, tracker

Program = Callable[..., Any]
Model = Callable[..., str]

# The pauses that a sender makes until it is through.
PAUSES = """
import time
sender, pauses = t.sender(Model.tracker.settings.collector_url), {0.0}
while len(pauses) == 1 or sender._pause_s:
    pauses.add(sender._pause_s)
    time.sleep(0.02)
print(sorted(pauses))
"""


def test_a_lone_report_leaves_soon_and_what_follows_is_gathered(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    done = program(
        model(collector.url) + "import time; print(time.monotonic()); model.forward(1.0)\n"
        "while t.sender(Model.tracker.settings.collector_url)._events.qsize(): time.sleep(0.02)\n"
        "for _ in range(7): model.forward(1.0)\n"
        "print(time.monotonic()); time.sleep(1)"
    )

    first, second = collector.times
    assert 0 < first - float(done.out[0]) < 1  # after half a second; what follows waits for five
    assert [1, 7] == [len(batch["events"]) for batch in collector.posted]
    assert second - float(done.out[1]) > 0.9  # at the end of the process; it would have waited for five seconds to be over
    assert 8 == len({report["id"] for report in collector.reports})


def test_batches_stay_small_enough_for_a_collector(collector: FakeCollector, program: Program, model: Model) -> None:
    program(model(collector.url) + "for _ in range(1200): model.forward(1.0)")

    assert 1200 == len({report["id"] for report in collector.reports})
    assert len(collector.posted) < 30
    assert max(len(json.dumps(batch)) for batch in collector.posted) < 64 * 1024
    assert [2] * len(collector.posted) == [batch["version"] for batch in collector.posted]


def test_a_collector_that_takes_no_batches_is_asked_once(byne_serve: FakeCollector, program: Program, model: Model) -> None:
    done = program(
        model(byne_serve.url) + "import time; model.forward(1.0); time.sleep(1); model.forward(1.0); model.forward(1.0)"
    )

    assert ["/reports/tiny/reports"] == byne_serve.unknown_paths
    assert 3 == len(byne_serve.reports)
    assert "dropped" not in done.log


def test_a_collector_that_asks_for_a_pause_gets_it_and_then_the_same_batch(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    collector.first, collector.retry_after = [429, 503], "1"

    program(model(collector.url) + "model.generate()" + PAUSES)

    assert 3 == len(collector.posted)
    assert collector.posted[0] == collector.posted[1] == collector.posted[2]
    assert all(later - earlier >= 1 for earlier, later in zip(collector.times, collector.times[1:], strict=False))


def test_a_collector_that_fails_is_tried_again_after_growing_pauses(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    collector.first = [500, 500]

    done = program(model(collector.url) + "model.generate()" + PAUSES)

    first, second, third = collector.times
    assert "[0.0, 1.0, 2.0]" == done.out[0]
    assert 0.5 <= second - first < 1.2  # a second, less jitter
    assert 1.0 <= third - second < 2.2
    assert 1 == len({batch["id"] for batch in collector.posted})


def test_a_refused_batch_is_dropped_said_once_and_told_with_the_next(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    collector.first = [401]

    done = program(
        model(collector.url) + "import time; model.generate(); model.generate(); time.sleep(1.8); model.forward(1.0)\n"
        "while t.sender(Model.tracker.settings.collector_url)._pause_s: time.sleep(0.1)"
    )

    assert [("generate", 0), ("generate", 0), ("forward", 2)] == [
        (event["method"], batch["dropped"]) for batch in collector.posted for event in batch["events"]
    ]
    assert 1 == done.log.count("are being dropped")
    assert "401" in done.log


@pytest.mark.parametrize("status", [302, 413])
def test_what_is_refused_is_not_sent_again(collector: FakeCollector, program: Program, model: Model, status: int) -> None:
    collector.status = status

    done = program(model(collector.url) + "import time; model.generate(); time.sleep(1.8)")

    assert 1 == len(collector.posted)
    assert f"are being dropped: answered b'HTTP/1.1 {status}" in done.log


def test_a_full_queue_drops_without_waiting_and_the_count_travels(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    collector.delay_s = 0.1

    done = program(
        model(collector.url) + "import time; began = time.perf_counter()\n"
        "for _ in range(4000): model.tracker.report('forward', 'success', 0.0)\n"
        "print(time.perf_counter() - began); time.sleep(4)"
    )

    assert float(done.out[0]) < 1
    told = sum(batch["dropped"] for batch in collector.posted)
    assert 0 < told < 4000 - 2048 + 1
    assert 4000 == len({report["id"] for report in collector.reports}) + told
    assert 1 == done.log.count("the queue is full")


@pytest.mark.parametrize("how", ["hangs", "trickles", "is down", "500", "429"])
def test_no_collector_slows_the_calls_or_the_end(collector: FakeCollector, program: Program, model: Model, how: str) -> None:
    url = collector.url if how != "is down" else "http://127.0.0.1:9/reports/tiny"
    if how == "hangs":
        collector.answer.clear()
    collector.trickle_s = 1.0 if how == "trickles" else 0.0
    collector.status = int(how) if how.isdigit() else 200

    done = program(
        model(url) + "import time; model.forward(1.0); began = time.perf_counter()\n"
        "for _ in range(1000): model.forward(1.0)\n"
        "print(time.perf_counter() - began)"
    )

    assert float(done.out[0]) < 0.5  # a synchronous report would be two seconds each
    assert done.seconds < 2 + 2  # and the interpreter's own start


def test_no_batch_is_too_large_for_a_collector_whatever_the_errors_say(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(
        model(collector.url, "full") + "error = ValueError('\u3042' * 4000)\n"
        "for _ in range(6):\n"
        "    for _ in range(100): model.forward(1.0)\n"
        "    model.tracker.report('f', 'fail', 0, error)"
    )

    assert 606 == len(collector.reports)
    assert max(len(json.dumps(batch)) for batch in collector.posted) < 64 * 1024


@pytest.mark.parametrize("host", ["a..b", "127.0.0.1:9"])
def test_a_collector_that_cannot_be_reached_is_said_once(program: Program, model: Model, host: str) -> None:
    done = program(model(f"http://{host}/reports/tiny") + "model.forward(1.0); model.forward(1.0)")

    assert 1 == done.log.count("are being dropped")


def test_a_collector_that_trickles_is_left_at_the_deadline(program: Program) -> None:
    done = program("""
import socket, threading, time
import marline_tracker as t
with socket.create_server(("127.0.0.1", 0)) as listener:
    def trickle():
        peer, _ = listener.accept()
        with peer:
            for byte in [b"H"] * 100:
                try: peer.sendall(byte)
                except OSError: return
                time.sleep(0.1)
    thread = threading.Thread(target=trickle)
    thread.start()
    began = time.monotonic()
    answer = t.post(f"http://127.0.0.1:{listener.getsockname()[1]}/report", b"{}", began + 0.5)
    print(answer.status, time.monotonic() - began)
    thread.join()
""")

    status, seconds = done.out[0].split()
    assert "0" == status
    assert 0.5 == pytest.approx(float(seconds), abs=0.25)


@given(text=st.text() | st.from_regex("[0-9]{1,400}", fullmatch=True))
def test_no_wish_for_a_pause_is_odd_enough_to_raise(text: str) -> None:
    pause = tracker._asked_s(text)

    assert pause is None or 0 <= pause <= 3600


def test_a_pause_may_be_asked_for_with_a_date() -> None:
    assert 3600 == tracker._asked_s("Fri, 31 Dec 2999 23:59:59 GMT")
    assert 0 == tracker._asked_s("Wed, 21 Oct 2015 07:28:00 GMT")
