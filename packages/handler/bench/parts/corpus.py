"""The bad inputs, B01 to B23, as request bodies for an image model, a text model and one that sums four numbers.

What is expected is any of the statuses that a row allows; what a row says of an answer beyond its status is checked as well.
"""

import base64
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from packages.handler.bench.parts.small import npy

OK, REFUSED, EITHER = (200,), (400,), (200, 400)
TOO_LARGE = 6_553_501
JPEG, PNG, JSON, TEXT, BYTES = "image/jpeg", "image/png", "application/json", "text/plain", "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Case:
    """One request: to which model, what, and how it may be answered. `says` must be in the answer."""

    row: str
    model: str  # image | text | sums
    body: bytes
    expected: tuple[int, ...]
    kind: str | None = BYTES  # its content type; None: none is sent
    headers: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    path: str | None = None  # in place of /predictions/MODEL


def cases(photo: bytes) -> list[Case]:
    """Every row, from one good photo."""
    return [*_bytes(photo), *_pictures(photo), *_json(photo), *_numbers(), *_texts(), *_frontend(photo)]


def _bytes(photo: bytes) -> Iterator[Case]:
    yield Case("B01", "image", b"", REFUSED, JPEG)
    yield Case("B01", "text", b"", REFUSED, TEXT)
    yield Case("B02", "image", photo.ljust(TOO_LARGE, b"\0"), (413,), JPEG)
    for kind in (None, "application/x-unknown", TEXT, JSON):
        yield Case("B03", "image", photo, (200, 415), kind)
    yield Case("B04", "image", photo[: len(photo) // 2], REFUSED, JPEG)
    yield Case("B05", "image", photo + b"trailing garbage" * 64, EITHER, JPEG)
    for body in (b"\xff", photo[:20], photo[:3], _encoded(Image.new("RGB", (64, 64)), "PNG")[:33], b"\x89PNG\r\n\x1a\n"):
        yield Case("B06", "image", body, REFUSED)
    yield Case("B11", "image", b"this is not an image", REFUSED, JPEG)
    yield Case("B11", "image", b"this is not an image", REFUSED, TEXT)


def _pictures(photo: bytes) -> Iterator[Case]:
    small = Image.new("RGB", (64, 64), "red")
    png = _encoded(small, "PNG")
    bomb = zlib.compress(bytes(64 << 20), 9)
    yield Case("B07", "image", _with_chunk(png, b"zTXt", b"k\0\0" + bomb), REFUSED, PNG)
    yield Case("B07", "image", _with_chunk(png, b"iCCP", b"k\0\0" + bomb), REFUSED, PNG)
    yield Case("B08", "image", b"SIMPLE  =                    T".ljust(2880), (415,))
    yield Case("B08", "image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", (415,))
    yield Case("B08", "image", b"\xd7\xcd\xc6\x9a" + bytes(60), (415,))
    yield Case("B08", "image", b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>', (415,), "image/svg+xml")
    yield Case("B08", "image", b"8BPS\0\1" + bytes(60), (415,))
    odd = {
        "CMYK": _encoded(small.convert("CMYK"), "JPEG"),
        "16 bits": _encoded(Image.fromarray(np.full((64, 64), 4096, np.uint16)), "PNG"),
        "palette with alpha": _encoded(small.convert("P"), "PNG", transparency=0),
        "grey": _encoded(small.convert("L"), "JPEG"),
        "1 x 1": _encoded(small.resize((1, 1)), "PNG"),
        "1 x 20000": _encoded(small.resize((1, 20_000)), "PNG"),
    }
    for body in odd.values():
        yield Case("B09", "image", body, EITHER)
    yield Case("B10", "image", photo + _zip(), EITHER, "application/zip")
    yield Case("B10", "image", png, OK, JPEG)
    yield Case("B10", "image", photo, OK, PNG)


def _json(photo: bytes) -> Iterator[Case]:
    text = base64.b64encode(photo).decode()
    yield Case("B12", "image", json.dumps({"data": text[:1001] + "!"}).encode(), REFUSED, JSON)
    yield Case(
        "B12",
        "image",
        json.dumps({"data": "\n".join(text[i : i + 76] for i in range(0, len(text), 76))}).encode(),
        EITHER,
        JSON,
    )
    yield Case("B12", "image", json.dumps({"data": base64.urlsafe_b64encode(photo).decode()}).encode(), EITHER, JSON)
    for model, good in (("sums", b"[1, 2, 3, 4]"), ("text", b'{"data": "a rope"}')):
        for body in (good[:-1], b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"), good[:-1] + b"," + good[-1:]):
            yield Case("B13", model, body, REFUSED, JSON)
    yield Case("B14", "sums", b'{"data": [9, 9, 9, 9], "data": [1, 2, 3, 4]}', OK, JSON, says="10.0")
    yield Case("B14", "sums", json.dumps(dict.fromkeys(map(str, range(1_000_000)), 0)).encode(), (400, 413), JSON)
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        yield Case("B15", "sums", f"[1, 2, 3, {number}]".encode(), REFUSED, JSON)
    yield Case("B15", "sums", b"[1, 2, 3, -0.0]", EITHER, JSON)


def _numbers() -> Iterator[Case]:
    for body in (b"[[1, 2, 3, 4]]", b"[1, 2, 3]", b"7"):
        yield Case("B16", "sums", body, REFUSED, JSON, says="[4]")
    for body in (b"[[1, 2], [3]]", b"[]", b'["a", "b", "c", "d"]'):
        yield Case("B16", "sums", body, REFUSED, JSON)
    for array in (np.zeros((1, 4), np.float32), np.zeros((0,), np.float32)):
        yield Case("B16", "sums", npy(array), REFUSED, says="[4]")
    yield Case("B16", "sums", npy(np.zeros(4, np.complex64)), REFUSED)
    yield Case("B16", "image", npy(np.zeros((3, 8, 8), np.float32)), REFUSED)
    for shape in ("(2147483648, 2147483648)", "(-1,)", "(-4, -1)"):
        yield Case("B17", "sums", _npy_header(shape) + bytes(16), REFUSED)
    yield Case("B18", "sums", npy(np.array([{}, []], object), allow_pickle=True), REFUSED)
    for claim, header in (
        (1 << 60, b"{}"),
        (1 << 20, b"{}"),
        (None, _tensor(0, 1 << 30)),
        (None, _tensor(-8, 8)),
        (None, b"{"),
    ):
        length = len(header) if claim is None else claim
        yield Case("B19", "sums", struct.pack("<Q", length) + header + bytes(16), REFUSED)


def _texts() -> Iterator[Case]:
    yield Case("B20", "text", b"   ", REFUSED, TEXT)
    for body in (b"rope " * 200_000, b"a" * 1_000_000, b"a " * 100_000):
        yield Case("B20", "text", body, EITHER, TEXT)
    for body in (b"\xed\xa0\x80\xed\xb0\x80", b'{"data": "\\ud800"}', b'"\\udfff"'):
        yield Case("B20", "text", body, EITHER, JSON if body[:1] in b'{"' else TEXT)
    for said in ("nul \0 inside", "\u202eright to left", "zero\u200bwidth", "👩‍👩‍👧‍👦", "שלום"):
        yield Case("B20", "text", said.encode(), EITHER, TEXT)
    for body in (b"rope", b"rope and " * 300):
        yield Case("B21", "text", body, OK, TEXT)


def _frontend(photo: bytes) -> Iterator[Case]:
    yield Case("B22", "image", gzip.compress(photo), (200, 415), JPEG, {"Content-Encoding": "gzip"})
    yield Case("B22", "image", gzip.compress(bytes(100 << 20)), (400, 413, 415), JPEG, {"Content-Encoding": "gzip"})
    for name in (
        "../models",
        "%2e%2e/models",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "n" * 10_240,
        "%C3%A4%F0%9F%92%A9",
        "image/token",
    ):
        yield Case("B23", "image", photo, (400, 404), JPEG, path=f"/predictions/{name}")
    yield Case("B23", "image", photo, (400, 404), JPEG, path="/predictions/../token?type=inference")


def _encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def _with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header, which ends at byte 33."""
    return png[:33] + struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) + png[33:]


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "a")
    return stream.getvalue()


def _npy_header(shape: str) -> bytes:
    told = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(told)) + told


def _tensor(begin: int, end: int) -> bytes:
    return json.dumps({"x": {"dtype": "F32", "shape": [4], "data_offsets": [begin, end]}}).encode()
