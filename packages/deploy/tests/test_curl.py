import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from marline.deploy._curl import curl_lines

URL = "http://127.0.0.1:1/predictions/a"


def lines_of(samples: list[Path], folder: Path, *, shared: bool = True) -> list[str]:
    return curl_lines(URL, folder / "a state.curl", samples, folder, shared=shared)


def test_an_image_is_sent_raw_in_json_and_in_a_form(tmp_path: Path) -> None:
    sample = tmp_path / 'a photo; of "me".png'

    raw, wrapped, form = lines_of([sample], tmp_path)

    assert ["-H", "Content-Type: image/png", "--data-binary", f"@{sample}", URL] == shlex.split(raw)[-5:]
    assert "base64" in wrapped
    assert "-F" in shlex.split(form)


def test_one_line_of_each_kind_whatever_the_number_of_samples(tmp_path: Path) -> None:
    samples = [tmp_path / name for name in ("1.png", "2.png", "3.jpg")]

    assert 6 == len(lines_of(samples, tmp_path))


def test_a_handler_of_one_s_own_gets_raw_bodies_alone(tmp_path: Path) -> None:
    assert 1 == len(lines_of([tmp_path / "1.png"], tmp_path, shared=False))


@pytest.mark.parametrize("value", [[1.0, 2.5], [[1, 2, 3], [4, 5, 6]], 7])
def test_numbers_are_sent_as_arrays_too(value: object, tmp_path: Path) -> None:
    sample = tmp_path / "sample.json"
    sample.write_text(json.dumps(value))

    lines = lines_of([sample], tmp_path)

    expected = np.array(value, dtype=np.float32)
    npy = np.load(io.BytesIO((tmp_path / "sample.npy").read_bytes()), allow_pickle=False)
    assert 5 == len(lines)
    assert "sample.npy" in lines[3]
    assert "sample.safetensors" in lines[4]
    np.testing.assert_array_equal(expected, npy)
    np.testing.assert_array_equal(expected, load((tmp_path / "sample.safetensors").read_bytes())["data"])


@pytest.mark.parametrize("value", [[[1], [2, 3]], [], ["a"], {"input_ids": [1]}, [True]])
def test_what_is_no_array_is_not_sent_as_one(value: object, tmp_path: Path) -> None:
    sample = tmp_path / "sample.json"
    sample.write_text(json.dumps(value))

    assert 3 == len(lines_of([sample], tmp_path))
