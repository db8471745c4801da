import threading

import pytest

from marline.core import listening, progress


def test_progress_reaches_the_innermost_listener_only_while_it_listens() -> None:
    outer: list[tuple[float, str]] = []
    inner: list[tuple[float, str]] = []

    progress(0.0, "nobody listens")
    with listening(lambda done, text: outer.append((done, text))):
        progress(0.1, "first")
        with listening(lambda done, text: inner.append((done, text))):
            progress(0.5, "second")
        progress(0.9, "third")
    progress(1.0, "nobody listens any more")

    assert [(0.1, "first"), (0.9, "third")] == outer
    assert [(0.5, "second")] == inner


def test_a_listener_is_forgotten_when_the_stage_fails() -> None:
    heard: list[str] = []

    with pytest.raises(ZeroDivisionError), listening(lambda _, text: heard.append(text)):
        raise ZeroDivisionError
    progress(0.5, "after")

    assert [] == heard


def test_two_stages_at_once_do_not_hear_each_other() -> None:
    heard: dict[str, list[str]] = {"one": [], "two": []}
    both = threading.Barrier(2, timeout=10)

    def stage(name: str) -> None:
        with listening(lambda _, text: heard[name].append(text)):
            both.wait()
            progress(0.5, name)
            both.wait()

    threads = [threading.Thread(target=stage, args=(name,)) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert {"one": ["one"], "two": ["two"]} == heard
