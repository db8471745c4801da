"""The formats a request body may have: images, arrays, sounds, text. Goes into every archive.

Each is known by its first bytes, whatever a request says of itself; what is read is bounded before it is unpacked.
"""

import ast
import io
import json
import math
import struct
import wave
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP")  # an explicit list: Pillow also opens formats that are risky or surprising in a request
OTHERS = {  # by their first bytes, which no text has; a request that is compressed begins like a gzip file
    b"SIMPLE  =": "FITS",
    b"%!PS": "PostScript",
    b"%PDF-": "PDF",
    b"8BPS\0": "PSD",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"PK\3\4": "ZIP",
    b"\x1f\x8b": "gzip",
    b"\xd7\xcd\xc6\x9a": "WMF",
}
MAX_PIXELS = 50_000_000
LONGEST_HEADER = 10_000  # bytes, as NumPy says; parsing a header of megabytes takes seconds
NUMBERS = {  # of .npy files; little-endian, or a single byte
    "|u1": torch.uint8,
    "|i1": torch.int8,
    "<i4": torch.int32,
    "<i8": torch.int64,
    "<f2": torch.float16,
    "<f4": torch.float32,
    "<f8": torch.float64,
}
SAFETENSORS = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


class Audio(NamedTuple):
    """A sound: float32 [n] from -1 to 1, and samples a second."""

    samples: torch.Tensor
    rate: int


class BadRequestError(ValueError):
    """What the client sent cannot be answered; a preprocess function may raise it too."""

    code, phrase = 400, "Bad Request"


class UnsupportedMediaError(BadRequestError):
    """What the client sent is of a known format that is not read here."""

    code, phrase = 415, "Unsupported Media Type"


def is_known(body: bytes | bytearray) -> bool:
    """Whether a body begins like one of the formats that are read; text has no beginning of its own."""
    return _reader(bytes(body)) is not None


def decode_bytes(body: bytes) -> Any:
    """One body, by its first bytes; BadRequestError where it is damaged, or of a format that is not read here."""
    if not body:
        raise BadRequestError("the request has no body")
    read = _reader(body)
    if read is not None:
        return read(body)
    other = next((name for begin, name in OTHERS.items() if body.startswith(begin)), None)
    if other is not None:
        raise UnsupportedMediaError(f"the body is {other}, which is not read here; images are {', '.join(FORMATS)}")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise BadRequestError(f"the body is neither {', '.join(FORMATS)} nor UTF-8 text") from None


def _reader(body: bytes) -> Callable[[bytes], Any] | None:
    if body[:3] == b"\xff\xd8\xff" or body[:8] == b"\x89PNG\r\n\x1a\n" or (body[:4] == b"RIFF" and body[8:12] == b"WEBP"):
        return _decode_image
    if body[:6] == b"\x93NUMPY":
        return _decode_npy
    if body[:4] == b"RIFF" and body[8:12] == b"WAVE":
        return _decode_wav
    return _decode_safetensors if _is_safetensors(body) else None


def _decode_npy(body: bytes) -> torch.Tensor:
    try:
        return _array(body)
    except Exception as error:  # hostile bytes
        raise BadRequestError(f"the .npy body cannot be decoded: {type(error).__name__}: {error}") from None


def _array(body: bytes) -> torch.Tensor:
    """An array of numbers in C order; the header is read as literals, so nothing in it can run (NumPy's format 1.0 to 3.0)."""
    begin = {1: 10, 2: 12, 3: 12}[body[6]]
    (length,) = struct.unpack("<H" if begin == 10 else "<I", body[8:begin])
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes; {LONGEST_HEADER} are allowed")
    told = ast.literal_eval(body[begin : begin + length].decode("latin-1"))
    dtype, shape = NUMBERS.get(told["descr"]), told["shape"]
    if dtype is None:
        raise ValueError(f"numbers of the kind {told['descr']!r}; known are {', '.join(NUMBERS)}")
    if told["fortran_order"] is not False:
        raise ValueError("not in C order")
    return _tensor(body[begin + length :], dtype, shape)


def _tensor(data: bytes, dtype: torch.dtype, shape: Any) -> torch.Tensor:
    if not isinstance(shape, tuple | list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"no shape: {shape!r}")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for the shape {list(shape)}")
    tensor = (
        torch.frombuffer(bytearray(data), dtype=dtype).view(tuple(shape)) if data else torch.empty(tuple(shape), dtype=dtype)
    )
    if tensor.is_floating_point():
        tensor = tensor.float()  # as for a JSON list: a model's weights are float32, and NumPy's default is not
        if not tensor.isfinite().all():
            raise ValueError("NaN, Infinity or a number too large for float32")
    return tensor


def _is_safetensors(body: bytes) -> bool:
    """A length of eight bytes, little-endian, then a JSON object of that length: no text begins like that."""
    return body[8:9] == b"{" and int.from_bytes(body[:8], "little") <= len(body) - 8


def _decode_safetensors(body: bytes) -> torch.Tensor | dict[str, torch.Tensor]:
    """Tensors one after the other behind a JSON header, without gaps (the format's own rule)."""
    try:
        found = _tensors(body)
    except Exception as error:  # hostile bytes
        raise BadRequestError(f"the safetensors body cannot be decoded: {type(error).__name__}: {error}") from None
    return next(iter(found.values())) if len(found) == 1 else found


def _tensors(body: bytes) -> dict[str, torch.Tensor]:
    begin = 8 + int.from_bytes(body[:8], "little")
    if begin > LONGEST_HEADER:
        raise ValueError(f"a header of {begin} bytes; {LONGEST_HEADER} are allowed")
    told = json.loads(body[8:begin])
    told.pop("__metadata__", None)
    found, end = {}, 0
    for name, entry in sorted(told.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, (low, high) = SAFETENSORS.get(entry["dtype"]), entry["data_offsets"]
        if dtype is None or low != end:
            raise ValueError(f"{name}: numbers of the kind {entry['dtype']!r} from byte {low}; expected byte {end}")
        found[name], end = _tensor(body[begin + low : begin + high], dtype, entry["shape"]), high
    if end != len(body) - begin or not found:
        raise ValueError(f"{len(body) - begin} bytes of data, {end} of them told")
    return found


def _decode_wav(body: bytes) -> Audio:
    """Mono, 16 bits a sample: what speech models are trained on, and all that is not ambiguous."""
    try:
        with wave.open(io.BytesIO(body)) as sound:
            told = (sound.getnchannels(), 8 * sound.getsampwidth())
            rate, length = sound.getframerate(), sound.getnframes()
            data = sound.readframes(length)
    except Exception as error:  # as above
        raise BadRequestError(f"the WAV body cannot be decoded: {type(error).__name__}: {error}") from None
    if told != (1, 16) or len(data) < 2:
        raise BadRequestError(
            f"the sound has {told[0]} channels of {told[1]} bits and {len(data)} bytes; one of 16 bits is expected"
        )
    if len(data) != 2 * length:
        raise BadRequestError(f"the WAV body is cut off: {len(data)} of {2 * length} bytes")
    return Audio(torch.frombuffer(bytearray(data), dtype=torch.int16).float() / 32768, rate)


def _decode_image(body: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        small_enough = image.width * image.height <= MAX_PIXELS
        if small_enough:
            image.load()
    except Exception as error:  # Pillow raises errors of many kinds on hostile bytes
        raise BadRequestError(f"the image cannot be decoded: {error}") from None
    if not small_enough:
        raise BadRequestError(f"the image has {image.width} x {image.height} pixels; {MAX_PIXELS} are allowed")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8, so that nearly every grey becomes white
        raise BadRequestError("the image has 16 bits of grey per pixel; 8 are expected")
    return image
