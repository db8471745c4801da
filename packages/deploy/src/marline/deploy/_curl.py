"""The curl lines that `nox -s serve` prints: one for every kind of input that the model takes, as they can be pasted."""

import json
import shlex
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from marline.deploy._client import content_type_of

JSON = "application/json"


def curl_lines(url: str, headers: Path, samples: Sequence[Path], folder: Path, *, shared: bool) -> list[str]:
    """One line for each kind of sample, raw, then in the other shapes that the shared handler reads (`shared`).

    `headers` is a file for curl with the token; files that have to be made, of a sample in JSON, are written to `folder`.
    """
    lines = []
    for kind, sample in sorted({content_type_of(sample.name): sample for sample in samples}.items()):
        curl = f"curl -sS -K {shlex.quote(str(headers))}"
        lines.append(_raw(curl, kind, sample, url))
        lines += _other_shapes(curl, kind, sample, url, folder) if shared else ()
    return lines


def _other_shapes(curl: str, kind: str, sample: Path, url: str, folder: Path) -> Iterator[str]:
    file = shlex.quote(str(sample))
    post = f"{curl} -H 'Content-Type: {JSON}' --data-binary @- {url}"
    if kind == JSON:
        yield f"""(printf '{{"data": '; cat {file}; printf '}}') | {post}"""
    else:
        yield f"""(printf '{{"data": {{"b64": "'; base64 < {file} | tr -d '\\n'; printf '"}}}}') | {post}"""
    yield f"{curl} -F {shlex.quote(f'data=@{_quoted(sample)};type={kind}')} {url}"
    for array in _arrays(kind, sample, folder):
        yield _raw(curl, content_type_of(array.name), array, url)


def _raw(curl: str, kind: str, body: Path, url: str) -> str:
    return f"{curl} -H 'Content-Type: {kind}' --data-binary {shlex.quote(f'@{body}')} {url}"


def _quoted(sample: Path) -> str:
    """A file's name in one of curl's forms, where a comma or a semicolon would end it."""
    told = str(sample).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{told}"'


def _arrays(kind: str, sample: Path, folder: Path) -> Iterator[Path]:
    """A sample that is a JSON list of numbers, as float32 in .npy and safetensors: who takes the one takes the others."""
    shape = _shape(json.loads(sample.read_text())) if kind == JSON else None
    if shape is None:
        return
    numbers = list(_flat(json.loads(sample.read_text())))
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    told = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({''.join(f'{size}, ' for size in shape)}), }}"
    header = told.ljust(-(-(len(told) + 11) // 64) * 64 - 11) + "\n"  # as NumPy pads it; 10 bytes stand before it
    npy = folder / f"{sample.stem}.npy"
    npy.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)
    yield npy
    named = json.dumps({"data": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    safetensors = folder / f"{sample.stem}.safetensors"
    safetensors.write_bytes(struct.pack("<Q", len(named)) + named + data)
    yield safetensors


def _shape(value: Any) -> list[int] | None:
    """The shape of nested lists of numbers, None where they are none, or ragged."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return []
    if not isinstance(value, list) or not value:
        return None
    inner = [_shape(each) for each in value]
    return None if None in inner or any(one != inner[0] for one in inner) else [len(value), *(inner[0] or [])]


def _flat(value: Any) -> Iterator[float]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield float(value)
