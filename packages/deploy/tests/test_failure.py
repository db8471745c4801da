from marline.deploy._server import _failure

PREFIX = "W-9000-digits_cnn_1.0-stdout - "
SIMPLE = [
    "Traceback (most recent call last):",
    '  File "handler.py", line 7, in initialize',
    "    raise RuntimeError('no weights')",
    "RuntimeError: no weights",
]
CHAINED = [
    *SIMPLE,
    "",
    "During handling of the above exception, another exception occurred:",
    "",
    "Traceback (most recent call last):",
    '  File "loader.py", line 3, in load',
    "    service.initialize()",
    "ValueError: cannot load",
]


def log(lines: list[str]) -> str:
    return "".join(f"{PREFIX}{line}\n" for line in lines)


def test_the_worker_s_own_traceback_is_taken_without_the_log_s_prefix() -> None:
    said = ["Listening on port: 9000", *SIMPLE, "Backend worker process died."]

    assert "\n".join(SIMPLE) == _failure(log(said))


def test_a_chain_is_taken_whole() -> None:
    assert "\n".join(CHAINED) == _failure(log([*CHAINED, "Backend worker process died."]))


def test_an_unfinished_traceback_is_none_yet() -> None:
    assert _failure("") is None
    assert _failure(log(["Listening on port: 9000"])) is None
    assert _failure(log(SIMPLE[:3])) is None


def test_a_chain_of_which_only_the_beginning_is_there_is_not_taken_for_the_cause() -> None:
    assert _failure(log(CHAINED[:9])) is None


def test_only_the_first_worker_s_chain_is_told() -> None:
    again = [*SIMPLE, *["Backend worker process died."] * 5, *SIMPLE]

    assert "\n".join(SIMPLE) == _failure(log(again))
