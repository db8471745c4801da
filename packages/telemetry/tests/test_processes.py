"""The sender among forks and threads, and at the end of the process."""

from collections.abc import Callable
from typing import Any

from marline.telemetry import FakeCollector

Program = Callable[..., Any]
Model = Callable[..., str]
FORKS = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")  # from Python 3.12 on a fork beside threads is warned of, and this one is about that
t.EXIT_S = t.EXPORT_S = 20  # a child that locks up is still late then; one that a busy machine holds up for 2 s is not
model.tracker.report("parent", "success", 0.0)
busy = True
def work():
    while busy: model.tracker.report("busy", "success", 0.0); threading.Event().wait(0.002)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for wave in range(25):  # four at once
    children, began = [], time.monotonic()
    for index in range(4):
        child = os.fork()
        if child == 0:
            busy = False
            model.tracker.report(f"child {wave * 4 + index}", "success", 0.0)
            sys.exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    print(time.monotonic() - began)
busy = False
for thread in threads: thread.join()
"""


def test_a_hundred_forks_neither_lock_up_nor_send_anything_twice(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    done = program(model(collector.url) + FORKS, deadline_s=60)

    assert sorted(map(float, done.out))[-3] < 1.9  # all waves but two are within what a process has at its end
    methods = [report["method"] for report in collector.reports]
    assert sorted(f"child {number}" for number in range(100)) == sorted(name for name in methods if name.startswith("child"))
    assert 1 == methods.count("parent")
    assert len(methods) == len({report["id"] for report in collector.reports})


def test_a_forked_child_of_multiprocessing_sends_what_it_has(collector: FakeCollector, program: Program, model: Model) -> None:
    program(
        model(collector.url) + "import multiprocessing, warnings; warnings.simplefilter('ignore'); model.forward(1.0)\n"
        "child = multiprocessing.get_context('fork').Process(target=model.generate); child.start(); child.join()"
    )

    assert ["forward", "generate"] == sorted(report["method"] for report in collector.reports)


THREADS = """
import threading, time
start = threading.Event()
def work():
    start.wait()
    for _ in range(10): model.forward(1.0)
threads = [threading.Thread(target=work) for _ in range(1000)]
for thread in threads: thread.start()
start.set()
for thread in threads: thread.join()
sender = t.sender(Model.tracker.settings.collector_url)
while sender._events.qsize(): time.sleep(0.05)
model.tracker.report("last", "success", 0.0)
print(sum(thread.name == "marline-tracker" for thread in threading.enumerate()))
"""


def test_a_thousand_threads_share_one_sender_and_each_report_arrives_or_is_counted(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    done = program(model(collector.url) + THREADS, deadline_s=60)

    told = sum(batch["dropped"] for batch in collector.posted)
    assert ["1"] == done.out
    assert 10_001 == len({report["id"] for report in collector.reports}) + told
    assert len(collector.reports) == len({report["id"] for report in collector.reports})


FIRST_CALLS = """
import sys, threading, time
sys.setswitchinterval(1e-6)
for wave in range(40):
    tracker = t.Tracker(t.Settings(f"http://127.0.0.1:9/{wave}", "tiny", "minimal"))
    ready = threading.Barrier(20)
    def work():
        ready.wait()
        tracker.report("f", "success", 0)
    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
sys.setswitchinterval(0.005)
print(sum(thread.name == "marline-tracker" for thread in threading.enumerate()))
"""


def test_threads_that_report_first_at_the_same_time_start_one_sender(program: Program, model: Model) -> None:
    assert ["40"] == program(model(None) + FIRST_CALLS).out


NO_THREADS = """
import resource, threading
threading.stack_size(1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
print(model.forward(1.0), model.forward(2.0))
"""


def test_where_no_thread_can_start_calls_and_the_end_are_undisturbed(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    done = program(model(collector.url) + NO_THREADS)

    assert (["1.0 0.5"], "") == (done.out, done.log)
    assert [] == collector.reports


def test_at_the_end_a_collector_that_hangs_takes_no_time_from_another(
    collector: FakeCollector, byne_serve: FakeCollector, program: Program, model: Model
) -> None:
    byne_serve.answer.clear()

    done = program(
        model(collector.url) + "import time; model.forward(1.0); time.sleep(1); model.generate()  # which waits for company\n"
        f"t.Tracker(t.Settings({byne_serve.url!r}, 'other', 'minimal')).report('f', 'success', 0)"
    )

    assert ["forward", "generate"] == [report["method"] for report in collector.reports]
    assert done.seconds < 1 + 2 + 2
