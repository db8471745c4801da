"""Which calls count: the outermost of an owner, also in tasks and greenlets."""

import sysconfig
from collections.abc import Callable
from typing import Any

from marline.telemetry import FakeCollector

Program = Callable[..., Any]
Model = Callable[..., str]


def test_a_method_that_calls_another_is_one_report(collector: FakeCollector, program: Program, model: Model) -> None:
    program(model(collector.url) + "model.generate(); model.forward(2.0)")

    assert ["generate", "forward"] == [report["method"] for report in collector.reports]


NESTED = """
class Outer:
    tracker = t.Tracker(t.Settings(Model.tracker.settings.collector_url, "outer", "minimal"))
    @t.tracked
    def forward(self):
        return model.generate()
Outer().forward()
"""


def test_a_tracked_model_inside_a_tracked_model_reports_its_own_call(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(model(collector.url) + NESTED)

    assert [("tiny", "generate"), ("outer", "forward")] == [(report["model"], report["method"]) for report in collector.reports]


TASKS = """
import asyncio
class Served(Model):
    @t.tracked
    async def answer(self, seconds):
        await asyncio.sleep(seconds)
        return self.forward(seconds)
async def main():
    served = Served()
    await asyncio.gather(served.answer(0.2), served.answer(0.1), served.answer(0.05))
asyncio.run(main())
"""


def test_tasks_of_one_loop_are_told_apart_and_measured_until_they_are_awaited(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(model(collector.url) + TASKS)

    assert ["answer"] * 3 == [report["method"] for report in collector.reports]
    durations = [report["duration_s"] for report in collector.reports]
    assert all(measured > slept - 0.01 for measured, slept in zip(durations, [0.05, 0.1, 0.2], strict=True))


OUTLIVING = """
import asyncio
class Served(Model):
    @t.tracked
    async def answer(self):
        self.later = asyncio.create_task(self.work())
    async def work(self):
        await asyncio.sleep(0.1)
        self.forward(1.0)
async def main():
    served = Served()
    await served.answer()
    await served.later
asyncio.run(main())
"""


def test_a_task_that_outlives_the_call_it_began_in_makes_calls_of_its_own(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(model(collector.url) + OUTLIVING)

    assert ["answer", "forward"] == [report["method"] for report in collector.reports]


GREENLETS = f"""
import sys; sys.path.append({sysconfig.get_path("purelib")!r})
import warnings; warnings.simplefilter("ignore")
from gevent import monkey; monkey.patch_all()
import gevent, time
"""


def test_greenlets_are_not_held_up(collector: FakeCollector, program: Program, model: Model) -> None:
    collector.delay_s = 1.0

    done = program(
        GREENLETS + model(collector.url) + "gevent.joinall([gevent.spawn(model.generate) for _ in range(20)])\n"
        "late = []\n"
        "for _ in range(200):\n"
        "    began = time.monotonic(); time.sleep(0.01); late.append(time.monotonic() - began)\n"
        "print(max(late))"
    )

    assert ["generate"] * 20 == [report["method"] for report in collector.reports]
    assert float(done.out[0]) < 0.6  # the collector takes a second, which only the sender's greenlet waits
