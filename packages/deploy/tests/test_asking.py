"""How `nox -s swap` asks the process that serves."""

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from marline.core import RequestError, StageError, state_file
from marline.deploy._asking import Outcome, Wish, answer, ask, asked, forget

WISH = Wish(stage="/artifacts/digits_cnn/run/tune", canary_s=30, keep=1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_wish_is_answered_by_the_one_who_serves() -> None:
    def serve() -> None:
        while (wish := asked("digits_cnn")) is None:
            time.sleep(0.01)
        mode = stat.S_IMODE(state_file("digits_cnn").with_suffix(".swap").stat().st_mode)
        answer("digits_cnn", Outcome(code=1, said=f"{wish.stage} {wish.canary_s:g} {wish.keep} {mode:o}", id=wish.id))

    threading.Thread(target=serve).start()

    outcome = ask("digits_cnn", WISH, os.getpid(), deadline_s=5)

    assert (1, "/artifacts/digits_cnn/run/tune 30 1 600") == (outcome.code, outcome.said)
    assert asked("digits_cnn") is None
    assert [] == [*state_file("digits_cnn").parent.iterdir()]


def test_two_wishes_at_once_are_refused() -> None:
    state_file("digits_cnn").with_suffix(".swap").write_text("{}")

    with pytest.raises(RequestError, match="another swap of digits_cnn is asked for"):
        ask("digits_cnn", WISH, os.getpid(), deadline_s=5)


def test_an_answer_to_somebody_else_is_not_taken_and_the_wish_is_withdrawn() -> None:
    answer("digits_cnn", Outcome(code=0, said="earlier", id="other"))

    with pytest.raises(StageError, match="was not swapped within 0 s"):
        ask("digits_cnn", WISH, os.getpid(), deadline_s=0.3)
    assert asked("digits_cnn") is None
    forget("digits_cnn")


def test_when_the_one_who_serves_is_gone_nobody_waits() -> None:
    with pytest.raises(StageError, match="the process that served digits_cnn ended meanwhile"):
        ask("digits_cnn", WISH, 2**22 + 1, deadline_s=5)
