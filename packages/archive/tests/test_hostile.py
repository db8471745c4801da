"""Archives nobody should serve."""

import json
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marline.archive import read_mar
from marline.core import ArchiveError, Manifest

MANIFEST = json.dumps({"model": {"modelName": "a"}})


def mar(file: Path, entries: dict[str, str], modes: dict[str, int] | None = None) -> Path:
    """A zip of these entries; `modes` are Unix file modes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, text)
    return file


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "deep/../../evil.py", "/etc/evil.py", "..\\evil.py", "C:\\evil.py", ".."],
)
def test_an_entry_that_leaves_the_folder_is_refused_and_named(tmp_path: Path, name: str) -> None:
    file = mar(tmp_path / "a.mar", {"MAR-INF/MANIFEST.json": MANIFEST, name: "evil"})

    with pytest.raises(ArchiveError, match="do not serve it") as error:
        read_mar(file)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR], ids=["link", "pipe", "device"])
def test_an_entry_that_is_no_plain_file_is_refused(tmp_path: Path, kind: int) -> None:
    file = mar(tmp_path / "a.mar", {"MAR-INF/MANIFEST.json": MANIFEST, "link": "/etc/passwd"}, {"link": kind | 0o777})

    with pytest.raises(ArchiveError, match="'link' leaves the archive's folder or is no plain file"):
        read_mar(file)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a.py", "a.py"], r"two entries are called 'a\.py'"),
        (["a.py", "./a.py"], r"two entries are called 'a\.py'"),
        (["a.py", "A.py"], r"'a\.py' and 'A\.py' are one name where case does not count"),
        (["a/x.py", "A/y.py"], "'a' and 'A' are one name"),
        (["a", "a/b"], "'a' is a file and a folder"),
        (["mar-inf/manifest.json"], "one name where case does not count"),
        (["a\x07.py"], r"the entry 'a\\x07\.py' leaves"),
    ],
)
def test_entries_that_would_overwrite_each_other_are_refused(names: list[str], why: str, tmp_path: Path) -> None:
    file = tmp_path / "a.mar"
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name that is there twice is the point
        for name in ("MAR-INF/MANIFEST.json", *names):
            archive.writestr(name, MANIFEST)

    with pytest.raises(ArchiveError, match=rf"{why}.*; do not serve it"):
        read_mar(file)


def test_a_hundred_thousand_entries_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
        for place in range(100_000):
            archive.writestr(str(place), b"")

    with pytest.raises(ArchiveError, match="it has more than 20,000 entries; do not serve it"):
        read_mar(tmp_path / "a.mar")


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
        archive.writestr("model.pt", bytes(100 << 20))

    with pytest.raises(ArchiveError, match="bytes, far more than it weighs; do not serve it"):
        read_mar(tmp_path / "a.mar")


def test_a_manifest_too_large_to_be_one_is_refused(tmp_path: Path) -> None:
    file = mar(tmp_path / "a.mar", {"MAR-INF/MANIFEST.json": MANIFEST + " " * (1 << 20)})

    with pytest.raises(ArchiveError, match=r"is not a model archive: its MAR-INF/MANIFEST\.json has"):
        read_mar(file)


def test_harmless_names_with_dots_are_read(tmp_path: Path) -> None:
    file = mar(tmp_path / "a.mar", {"MAR-INF/MANIFEST.json": MANIFEST, "a..b/..c": "x", "deep/folder/": ""})

    assert {"MAR-INF/MANIFEST.json", "a..b/..c"} == set(read_mar(file).sizes)


@pytest.mark.parametrize(
    "entries",
    [
        {"model.pt": "weights"},
        {"MAR-INF/MANIFEST.json": "{"},
        {"MAR-INF/MANIFEST.json": "[]"},
        {"MAR-INF/MANIFEST.json": '{"model": 3}'},
        {"MAR-INF/MANIFEST.json": '{"model": {"configFile": "no.yaml"}}'},
    ],
    ids=["no manifest", "cut short", "a list", "model is a number", "config is missing"],
)
def test_a_zip_without_a_sound_manifest_is_no_archive(tmp_path: Path, entries: dict[str, str]) -> None:
    with pytest.raises(ArchiveError, match="is not a model archive"):
        read_mar(mar(tmp_path / "a.mar", entries))


def test_a_missing_file_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no\.mar is not a model archive"):
        read_mar(tmp_path / "no.mar")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_an_archive_cut_short_is_refused(build: Callable[..., Manifest], tmp_path: Path, share: float) -> None:
    file = build(tmp_path).path("digits_cnn.mar")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(ArchiveError, match="is not a model archive"):
        read_mar(file)


def test_a_flipped_byte_in_the_weights_is_noticed_and_named(build: Callable[..., Manifest], tmp_path: Path) -> None:
    file = build(tmp_path).path("digits_cnn.mar")
    content = bytearray(file.read_bytes())
    content[content.index(b"weightsweights") + 1000] ^= 1
    file.write_bytes(content)

    with pytest.raises(ArchiveError, match=r"model\.pt is damaged; build it again with nox -s archive"):
        read_mar(file)


@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255), deflated=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_any_flipped_byte_is_refused_as_an_archive_error_or_changes_nothing_read(
    tmp_path: Path, place: float, mask: int, deflated: bool
) -> None:
    file = tmp_path / "a.mar"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"configFile": "model-config.yaml"}}))
        archive.writestr("model-config.yaml", "minWorkers: 1\n")
    before = read_mar(file)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= mask
    file.write_bytes(content)

    try:
        after = read_mar(file)
    except ArchiveError as error:
        message = str(error)
        assert message.startswith(str(file))
    else:
        assert (before.manifest, before.config) == (after.manifest, after.config)
