"""Archives of extra files: all kinds of good ones, and those that nobody should unpack."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marline.archive._entries import ENTRIES
from marline.archive._unpack import unpack
from marline.core import ArchiveError

FILES = {"model.py": b"class MyNetwork: ...\n", "parts/__init__.py": b"", "parts/deep/block.py": b"x = 1\n"}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "x.tar": bytes,
    "x.tar.gz": gzip.compress,
    "x.tgz": bytes,  # a plain tar: what `tar -cvf x.tgz` of model-servers' README makes
    "x.tar.bz2": bz2.compress,
    "x.tar.xz": lzma.compress,
}


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def zipped(file: Path, *entries: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a name that is there twice is the point
                archive.writestr(info, content)
    return file


def outside(folder: Path, archive: Path) -> list[Path]:
    """What lies in a folder beside the archive and the folder it was to be unpacked to."""
    return [
        path for path in folder.rglob("*") if path != archive and path != folder / "in" and folder / "in" not in path.parents
    ]


def read(found: dict[str, Path]) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in found.items()}


@pytest.mark.parametrize(("name", "compress"), COMPRESSORS.items(), ids=list(COMPRESSORS))
def test_a_tar_is_unpacked_however_it_is_packed(name: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    folders = [member("./", kind=tarfile.DIRTYPE), member("./parts", kind=tarfile.DIRTYPE)]
    clutter = [member("parts/__pycache__/x.pyc"), member("._model.py"), member(".DS_Store")]
    files = [member(f"./{path}", content) for path, content in FILES.items()]
    (tmp_path / name).write_bytes(compress(tarred(*folders, *files, *clutter)))

    assert FILES == read(unpack(tmp_path / name, tmp_path / "in"))


def test_a_zip_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    entries = [("parts/", b"", stat.S_IFDIR | 0o755), *((name, content, 0) for name, content in FILES.items())]

    assert FILES == read(unpack(zipped(tmp_path / "x.tar.gz", *entries), tmp_path / "in"))


@pytest.mark.parametrize("content", [tarred(), b"PK\x05\x06" + bytes(18)], ids=["tar", "zip"])
def test_an_empty_archive_holds_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)

    assert {} == unpack(tmp_path / "x", tmp_path / "in")


HOSTILE = {
    "traversal": [member("../evil.py", b"x")],
    "deep traversal": [member("a/../../evil.py", b"x")],
    "absolute": [member("/etc/evil.py", b"x")],
    "backslash": [member("..\\evil.py", b"x")],
    "control character": [member("a\x1b[2J.py", b"x")],
    "symlink": [member("link", kind=tarfile.SYMTYPE, link="/etc/passwd"), member("link/x", b"x")],
    "hard link": [member("link", kind=tarfile.LNKTYPE, link="../../etc/passwd")],
    "device": [member("null", kind=tarfile.CHRTYPE)],
    "block device": [member("disk", kind=tarfile.BLKTYPE)],
    "pipe": [member("pipe", kind=tarfile.FIFOTYPE)],
    "duplicate": [member("a.py", b"1"), member("./a.py", b"2")],
    "case clash": [member("a.py", b"1"), member("A.py", b"2")],
    "folder case clash": [member("a/x.py", b"1"), member("A/y.py", b"2")],
    "file and folder": [member("a", b"1"), member("a/b", b"2")],
    "folder and file": [member("a/b", b"2"), member("a", b"1")],
    "composed and not": [member("\u00e9.py", b"1"), member("e\u0301.py", b"2")],
    "traversing folder": [member("..", kind=tarfile.DIRTYPE)],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_tar_is_refused_and_nothing_is_written_outside(
    members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(tarred(*members))

    with pytest.raises(ArchiveError, match=r"x\.tar: .*; it is not unpacked") as refused:
        unpack(file, tmp_path / "in")
    assert [file] == list(tmp_path.rglob("*"))
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil.py", b"x", 0)],
        [("/etc/evil.py", b"x", 0)],
        [("link", b"/etc/passwd", stat.S_IFLNK | 0o777)],
        [("link/", b"/etc", stat.S_IFLNK | 0o777)],
        [("pipe", b"", stat.S_IFIFO | 0o666)],
        [("a.py", b"1", 0), ("a.py", b"2", 0)],
        [("a.py", b"1", 0), ("A.py", b"2", 0)],
        [("a", b"1", 0), ("a/b", b"2", 0)],
    ],
)
def test_a_hostile_zip_is_refused_and_nothing_is_written_outside(entries: list[tuple[str, bytes, int]], tmp_path: Path) -> None:
    file = zipped(tmp_path / "x.zip", *entries)

    with pytest.raises(ArchiveError, match=r"x\.zip: .*; it is not unpacked"):
        unpack(file, tmp_path / "in")
    assert [file] == list(tmp_path.rglob("*"))


def zeros(mebibytes: int) -> bytes:
    return tarred(member("zeros.bin", bytes(mebibytes << 20)))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress], ids=["gz", "bz2"])
def test_a_bomb_is_refused_before_it_is_written(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "x.tar.gz"
    file.write_bytes(compress(zeros(100)))

    with pytest.raises(ArchiveError, match="far more than it weighs"):
        unpack(file, tmp_path / "in")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 90 << 20


def test_a_sparse_header_that_says_ten_gigabytes_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("zeros.bin")
    info.size = 10 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(1024))

    with pytest.raises(ArchiveError, match="far more than it weighs"):
        unpack(tmp_path / "x.tar", tmp_path / "in")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    file = zipped(tmp_path / "x.zip", ("zeros.bin", bytes(100 << 20), 0))

    with pytest.raises(ArchiveError, match="far more than it weighs"):
        unpack(file, tmp_path / "in")
    assert [file] == list(tmp_path.rglob("*"))


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    headers = [tarfile.TarInfo(f"{place}").tobuf() for place in range(ENTRIES + 1)]
    (tmp_path / "x.tar").write_bytes(b"".join(headers) + bytes(1024))

    with pytest.raises(ArchiveError, match="more than 20,000 entries"):
        unpack(tmp_path / "x.tar", tmp_path / "in")


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
def test_an_archive_cut_short_is_refused(name: str, share: float, tmp_path: Path) -> None:
    whole = COMPRESSORS[name](tarred(*(member(path, content * 300) for path, content in FILES.items())))
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(ArchiveError, match=r"cannot be unpacked|cut short"):
        unpack(tmp_path / name, tmp_path / "in")


def test_a_tar_cut_between_two_files_is_refused(tmp_path: Path) -> None:
    """Python alone takes it for whole."""
    (tmp_path / "x.tar").write_bytes(tarred(member("a", b"1"), member("b", b"2"))[:1024])

    with pytest.raises(ArchiveError, match="it is cut short"):
        unpack(tmp_path / "x.tar", tmp_path / "in")


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100, b"\x1f\x8bno", b"PK\x03\x04no", b"BZhno"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(content)

    with pytest.raises(ArchiveError, match=r"x\.zip cannot be unpacked as a tar or zip"):
        unpack(tmp_path / "x.zip", tmp_path / "in")


@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255), name=st.sampled_from([*COMPRESSORS, "x.zip"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_any_flipped_byte_writes_nothing_outside(
    place: float, mask: int, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    file = folder / name
    if name == "x.zip":
        zipped(file, *((path, content, 0) for path, content in FILES.items()))
    else:
        file.write_bytes(COMPRESSORS[name](tarred(*(member(path, content) for path, content in FILES.items()))))
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= mask
    file.write_bytes(content)

    try:
        found = unpack(file, folder / "in")
    except ArchiveError:
        found = {}
    assert all(path.is_relative_to(folder / "in") for path in found.values())
    assert [] == [path for path in outside(folder, file) if path.name != "in.tar"]
