from pathlib import Path

from marline.deploy._worker_log import first_failure, newest_failure, said, starts

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


def whole(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def logged(lines: list[str], prefix: str = PREFIX) -> str:
    return "".join(f"{prefix}{line}\n" for line in lines)


def test_the_worker_s_own_traceback_is_taken_without_the_log_s_prefix(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text(logged(["Listening on port: 9000", *SIMPLE, "Backend worker process died."]))

    assert "\n".join(SIMPLE) == first_failure(said(tmp_path, 0, "digits_cnn", "1.0"))


def test_what_another_version_prints_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text(
        logged(SIMPLE, "W-9001-digits_cnn_1.0-0123abcd-stdout - ")
        + logged(SIMPLE, "W-9002-other_digits_cnn_1.0-stderr - ")
        + logged(["Listening on port: 9000"])
    )

    assert "Listening on port: 9000\n" == said(tmp_path, 0, "digits_cnn", "1.0")


def test_a_log_that_was_begun_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text(logged(SIMPLE))

    assert whole(SIMPLE) == said(tmp_path, 100_000, "digits_cnn", "1.0")


def test_starts_are_counted_worker_by_worker(tmp_path: Path) -> None:
    first, second, other = (f"W-{port}-{model}_1.0-stdout - " for port, model in ((9000, "a"), (9001, "a"), (9002, "b")))
    started = ["Torch worker started.", "Python runtime: 3.11.7"]
    (tmp_path / "worker.log").write_text("".join(logged(started, each) for each in (first, second, other, other)))
    size = (tmp_path / "worker.log").stat().st_size

    assert [1, 2, 0] == [starts(tmp_path, 0, "a", "1.0"), starts(tmp_path, 0, "b", "1.0"), starts(tmp_path, size, "b", "1.0")]


def test_the_newest_traceback_is_the_last_one() -> None:
    assert "ValueError: cannot load" == (newest_failure(whole(CHAINED)) or "").splitlines()[-1]
    assert newest_failure("") is None


def test_a_chain_is_taken_whole() -> None:
    assert "\n".join(CHAINED) == first_failure(whole([*CHAINED, "Backend worker process died."]))


def test_an_unfinished_traceback_is_none_yet() -> None:
    assert first_failure("") is None
    assert first_failure(whole(["Listening on port: 9000"])) is None
    assert first_failure(whole(SIMPLE[:3])) is None


def test_a_chain_of_which_only_the_beginning_is_there_is_not_taken_for_the_cause() -> None:
    assert first_failure(whole(CHAINED[:9])) is None


def test_only_the_first_worker_s_chain_is_told() -> None:
    again = [*SIMPLE, *["Backend worker process died."] * 5, *SIMPLE]

    assert "\n".join(SIMPLE) == first_failure(whole(again))
