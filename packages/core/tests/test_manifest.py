import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marline.core import Manifest, RequestError, StageError, read_manifest, verify, write_json

Make = Callable[..., Manifest]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_what_is_sealed_is_read_back(sealed: Make, tmp_path: Path) -> None:
    made = sealed(tmp_path / "run" / "load", {"a.txt": "a", "deep/b.txt": "bb"}, {"answer": 42})

    found = read_manifest(tmp_path / "run" / "load")

    verify(found)
    assert made == found
    assert ("load", "run", "tiny") == (found.stage, found.run, found.model)
    assert {"a.txt": 1, "deep/b.txt": 2} == {name: output.size_bytes for name, output in found.outputs.items()}
    assert "bb" == found.path("deep/b.txt").read_text()
    assert found.path("deep").is_dir()


def test_an_output_nobody_made_is_named(sealed: Make, tmp_path: Path) -> None:
    manifest = sealed(tmp_path / "load", {"a.txt": "a"})
    (tmp_path / "load" / "later.txt").write_text("not in the manifest")

    for name in ("later.txt", "a", ".."):
        with pytest.raises(KeyError, match="stage load left no"):
            manifest.path(name)


def test_a_run_may_be_moved(sealed: Make, tmp_path: Path) -> None:
    sealed(tmp_path / "here" / "load", {"deep/a.txt": "a"})

    shutil.move(tmp_path / "here", tmp_path / "there")

    moved = read_manifest(tmp_path / "there" / "load")
    verify(moved)
    assert str(tmp_path) not in (tmp_path / "there" / "load" / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file.write_text("abd"), "its sha256 differs"),
        (lambda file: file.write_text("ab"), "its sha256 differs"),
        (lambda file: file.unlink(), "is missing"),
    ],
    ids=["changed", "cut short", "missing"],
)
def test_a_changed_output_is_noticed_and_named(
    sealed: Make, tmp_path: Path, damage: Callable[[Path], object], told: str
) -> None:
    manifest = sealed(tmp_path / "load", {"a.txt": "abc"})
    damage(tmp_path / "load" / "a.txt")

    with pytest.raises(StageError, match=rf"a\.txt .*{told}"):
        verify(manifest)


def test_an_unfinished_stage_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.pt").write_text("half")

    with pytest.raises(RequestError, match=r"stage export is not finished .* nox -s export -- model=NAME"):
        read_manifest(tmp_path / "export")


@pytest.mark.parametrize("keep", [0, 1, 40, -2])
def test_a_manifest_that_is_cut_short_is_a_stage_error(sealed: Make, tmp_path: Path, keep: int) -> None:
    sealed(tmp_path / "load", {"a.txt": "a"})
    file = tmp_path / "load" / "manifest.json"
    file.write_text(file.read_text()[:keep])

    with pytest.raises(StageError, match=r"manifest\.json is damaged.*fresh=load"):
        read_manifest(tmp_path / "load")


def test_the_manifest_is_the_last_file_to_appear(tmp_path: Path, sealed: Make) -> None:
    with pytest.raises(ValueError, match="Unable to serialize"):
        sealed(tmp_path / "load", {"a.txt": "a"}, {"what": object()})

    assert ["a.txt"] == [file.name for file in (tmp_path / "load").iterdir()]


def test_the_digest_knows_what_was_made_and_not_when_or_where(sealed: Make, tmp_path: Path) -> None:
    one = sealed(tmp_path / "one" / "load", {"a.txt": "a"}, {"x": 1, "y": 2})
    same = sealed(tmp_path / "two" / "load", {"a.txt": "a"}, {"y": 2, "x": 1})
    others = [
        sealed(tmp_path / "three" / "load", {"a.txt": "b"}, {"x": 1, "y": 2}),
        sealed(tmp_path / "four" / "load", {"b.txt": "a"}, {"x": 1, "y": 2}),
        sealed(tmp_path / "five" / "load", {"a.txt": "a"}, {"x": 1, "y": 3}),
    ]

    assert one.digest == same.digest
    assert one.digest not in {other.digest for other in others}


def test_inputs_are_remembered_by_their_digest(sealed: Make, tmp_path: Path) -> None:
    loaded = sealed(tmp_path / "load", {"a.txt": "a"})

    wrapped = sealed(tmp_path / "wrap", {"b.txt": "b"}, {}, loaded)

    assert {"load": loaded.digest} == wrapped.inputs


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_json_comes_back_as_it_was_written(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "a.json", content)

    assert content == json.loads((tmp_path / "a.json").read_text())
    assert ["a.json"] == [file.name for file in tmp_path.iterdir()]


def test_what_json_cannot_express_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [1])

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", [float("inf")])

    assert {"a.json": [1]} == {file.name: json.loads(file.read_text()) for file in tmp_path.iterdir()}
