import hashlib
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from marline.core import code_sha256, file_sha256, folder_sha256, json_sha256, machine


def test_a_files_digest_is_the_sha256_everyone_else_computes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)

    assert hashlib.sha256(b"abc" * 1_000_000).hexdigest() == file_sha256(tmp_path / "a")


@given(st.dictionaries(st.text(), st.integers()))
def test_a_json_digest_does_not_know_the_order_of_keys(values: dict[str, int]) -> None:
    turned = dict(reversed(values.items()))

    assert json_sha256({"inner": values}) == json_sha256({"inner": turned})


@given(st.lists(st.integers(), unique=True, min_size=2))
def test_a_json_digest_knows_the_order_of_lists(values: list[int]) -> None:
    assert json_sha256(values) != json_sha256(values[::-1])


def test_a_folders_digest_knows_names_and_bytes_and_not_byte_code(tmp_path: Path) -> None:
    for name in ("one", "two", "renamed", "changed"):
        (tmp_path / name / "__pycache__").mkdir(parents=True)
        (tmp_path / name / ("b.py" if name == "renamed" else "a.py")).write_text("2" if name == "changed" else "1")
        (tmp_path / name / "__pycache__" / "a.pyc").write_text(name)

    digests = {name: folder_sha256(tmp_path / name) for name in ("one", "two", "renamed", "changed")}

    assert digests["one"] == digests["two"]
    assert 3 == len(set(digests.values()))


def test_the_code_digest_of_a_stage_covers_its_siblings() -> None:
    root = Path(__file__).parents[2]
    siblings = ["archive", "core", "handler", "telemetry"]  # those archive's pyproject.toml names, and theirs

    expected = {name: folder_sha256(root / name / "src" / "marline" / name) for name in siblings}

    assert json_sha256(expected) == code_sha256("archive")
    assert code_sha256("archive") != code_sha256("core")


def test_the_machine_is_json_and_the_same_when_asked_again() -> None:
    assert machine() == json.loads(json.dumps(machine()))
    assert machine()["cores"] >= 1
    assert machine()["processor"]
