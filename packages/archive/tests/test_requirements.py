from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement

from marline.archive._requirements import PINNED, read_requirements, requirement_lines, unfit
from marline.core import RequestError


@pytest.mark.parametrize(
    "line",
    [
        "einops==0.8.0",
        "einops == 0.8.0  # a comment",
        "uvicorn[standard]==0.30.1",
        "ruamel.yaml==0.18.6; python_version < '3.13' and sys_platform == 'linux'",
        "pkg==1!2.0.post1+local.1",
        f"pkg==1.0 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}",
        "torchmetrics==1.4.0",  # begins like torch and is another
    ],
)
def test_a_pinned_line_is_fit_to_be_installed(line: str) -> None:
    assert [] == list(unfit(requirement_lines(line)))


@pytest.mark.parametrize(
    "line",
    [
        *("einops", "einops>=0.8", "einops~=0.8", "einops==0.8.*", "einops===0.8", "einops==0.8,!=0.9", "einops=0.8"),
        *("-r other.txt", "--index-url https://example.org", "-i x", "--find-links .", "-e .", "-c constraints.txt"),
        *("./einops.whl", "/opt/einops.whl", "einops @ https://example.org/e.whl", "git+https://example.org/e.git"),
        *("https://example.org/e.whl", "einops==0.8 --index-url https://example.org", "einops==0.8 --global-option=x"),
        *("einops==0.8; python_version > '3' --index-url x", "einops==0.8; ${HOME}", "einops==${VERSION}", "einops==0.8 \\"),
        *("a" * 5000 + "==1", "a" + "-" * 100_000),
    ],
    ids=lambda line: line[:30],
)
def test_anything_else_is_not(line: str) -> None:
    assert "is not name==version" in next(unfit(requirement_lines(line)))


@pytest.mark.parametrize(
    "line", ["torch==2.14.1", "Torch_Vision==1", "torchvision", "TORCHAUDIO>=1", "torch[opt]==2", "torch @ x"]
)
def test_the_server_brings_torch(line: str) -> None:
    if line.startswith("Torch_"):  # another name: normalised it is torch-vision
        assert [] == list(unfit([line]))
    else:
        assert "the server brings torch, torchvision and torchaudio" in next(unfit([line]))


def test_a_package_is_named_once() -> None:
    assert ["'My.Pkg==2': my-pkg is named twice"] == list(unfit(["my_pkg==1", "My.Pkg==2"]))


def test_every_unfit_line_is_named_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("einops==0.8.0\n\n# fine\nnumpy>=1\ntorch==2.0\n")

    with pytest.raises(RequestError) as refused:
        read_requirements(file, install=True)

    lines = str(refused.value).splitlines()
    assert 2 == len(lines)
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert ["einops==0.8.0", "numpy>=1", "torch==2.0"] == read_requirements(file, install=False)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_bytes(b"\xff\xfe e")

    with pytest.raises(RequestError, match="is no text"):
        read_requirements(file, install=False)


@given(st.from_regex(PINNED, fullmatch=True))
def test_what_is_fit_is_one_pinned_version_by_the_packaging_library_too(line: str) -> None:
    try:
        told = Requirement(line.partition("--hash")[0])
    except InvalidRequirement:
        return  # pip refuses it as well
    assert told.url is None
    assert ["=="] == [each.operator for each in told.specifier]


@given(st.text(max_size=200))
def test_any_text_is_fit_or_said_why_not(text: str) -> None:
    lines = requirement_lines(text)

    assert all(isinstance(why, str) for why in unfit(lines))
