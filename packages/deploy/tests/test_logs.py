from pathlib import Path

from marline.deploy._logs import mark, since


def test_what_was_there_before_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert "" == since(log, mark(log))
    log.write_text("old\n")
    before = mark(log)
    with log.open("a") as stream:
        stream.write("new\n")

    assert "new\n" == since(log, before)


def test_a_log_that_was_not_there_is_read_from_its_beginning(tmp_path: Path) -> None:
    before = mark(tmp_path / "worker.log")
    (tmp_path / "worker.log").write_text("new\n")

    assert "new\n" == since(tmp_path / "worker.log", before)


def test_a_rotation_in_between_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("old\n")
    before = mark(log)
    with log.open("a") as stream:
        stream.write("first half\n")
    log.rename(tmp_path / "worker.1.log")
    log.write_text("second half, longer than all before it\n")

    assert "first half\nsecond half, longer than all before it\n" == since(log, before)


def test_after_two_rotations_what_is_left_is_read(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("old\n")
    before = mark(log)
    log.rename(tmp_path / "worker.2.log")
    (tmp_path / "worker.1.log").write_text("between\n")
    log.write_text("new\n")

    assert "new\n" == since(log, before)
