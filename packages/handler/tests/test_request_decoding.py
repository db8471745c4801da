"""Request bodies become tensors, sounds and images, or the client's mistake: nothing else, and soon."""

import io
import math
import struct
import time
import wave
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from marline.handler import imported

HERE = Path(__file__).parents[1] / "src" / "marline" / "handler"
with imported(HERE, "request_decoding") as decoding:  # its files import each other as they do in an archive
    Audio, BadRequestError, decode = decoding.Audio, decoding.BadRequestError, decoding.decode

MAGIC = b"\x93NUMPY"
QUICK_S = 1.0
KINDS = ["|u1", "|i1", "<i4", "<i8", "<f2", "<f4", "<f8"]
FINITE = {"allow_nan": False, "allow_infinity": False, "min_value": -60_000, "max_value": 60_000}
NUMBERS = st.sampled_from(KINDS).flatmap(
    lambda kind: arrays.arrays(
        kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), elements=FINITE if "f" in kind else None
    )
)


def saved(array: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def with_header(header: str, data: bytes = b"", version: int = 2) -> bytes:
    text = header.encode("latin-1")
    return MAGIC + bytes([version, 0]) + struct.pack("<I", len(text)) + text + data


def shaped(shape: str, data: bytes = b"\0" * 16) -> bytes:
    return with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}", data)


@given(NUMBERS)
def test_an_array_is_what_numpy_loads_with_fractions_as_float32(array: Any) -> None:
    body = saved(np.ascontiguousarray(array).reshape(array.shape))

    tensor = decode({"body": body})

    expected = np.load(io.BytesIO(body))
    expected = expected.astype(np.float32) if expected.dtype.kind == "f" else expected
    assert (expected.dtype, expected.shape) == (tensor.numpy().dtype, tuple(tensor.shape))
    assert np.array_equal(expected, tensor.numpy())


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int]) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(6, dtype="<i4").reshape(2, 3), version)

    assert [[0, 1, 2], [3, 4, 5]] == decode({"body": stream.getvalue()}).tolist()


FOUR = saved(np.ones((2, 2), "<f4"))
REFUSED = {
    "only the magic": (MAGIC, ""),
    "half a header": (FOUR[:30], ""),
    "a number too few": (FOUR[:-4], "12 bytes for the shape [2, 2]"),
    "a number too many": (FOUR + b"\0" * 4, "20 bytes for the shape [2, 2]"),
    "an unknown version": (MAGIC + b"\x09\0" + FOUR[8:], ""),
    "objects": (saved(np.array([{}, None]), allow_pickle=True), "numbers of the kind '|O'; known are |u1"),
    "a structure": (saved(np.zeros(2, [("a", "<f4")])), ""),
    "big-endian": (saved(np.ones(2, ">f4")), "numbers of the kind '>f4'"),
    "truth": (saved(np.ones(2, bool)), "numbers of the kind '|b1'"),
    "columns first": (saved(np.asfortranarray(np.ones((2, 3)))), "not in C order"),
    "a huge shape": (shaped("(4294967296, 4294967296)"), "16 bytes for the shape"),
    "a huge shape of nothing": (shaped("(0, 99999999999999999999999)", b""), ""),
    "a product that wraps to 4": (shaped("(4611686018427387905, 4)"), "16 bytes for the shape"),
    "a negative shape": (shaped("(-1, -4)"), "no shape: (-1, -4)"),
    "one side negative": (shaped("(4, -1)"), "no shape: (4, -1)"),
    "a shape of truth": (shaped("(4, True)"), "no shape: (4, True)"),
    "a shape of words": (shaped("'4'"), "no shape: '4'"),
    "more dimensions than torch has": (shaped("(4," + "1," * 99 + ")"), ""),
    "NaN": (saved(np.array([1.0, math.nan])), "NaN, Infinity"),
    "infinity": (saved(np.array([math.inf], "<f2")), "NaN, Infinity"),
    "no dictionary": (with_header("3"), ""),
    "keys left out": (with_header("{}"), "KeyError"),
    "nested brackets": (with_header("(" * 9_000), ""),
    "nested signs": (with_header("-" * 5_000 + "1"), ""),
    "a long sum": (with_header("1+" * 4_000 + "1"), ""),
    "a number of many digits": (shaped("(" + "9" * 9_000 + ",)"), ""),
    "a header of megabytes": (with_header("1+" * 2_000_000 + "1"), "a header of 4000001 bytes; 10000 are allowed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_array_is_refused_soon(name: str) -> None:
    body, told = REFUSED[name]
    began = time.monotonic()

    with pytest.raises(BadRequestError, match=r"the \.npy body cannot be decoded: ") as error:
        decode({"body": body})

    assert time.monotonic() - began < QUICK_S
    assert told in str(error.value)


def test_code_in_a_header_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "ran"

    with pytest.raises(BadRequestError, match="malformed node"):
        decode({"body": with_header(f"__import__('pathlib').Path({str(file)!r}).touch()")})
    assert not file.exists()


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50), st.integers(1, 192_000))
def test_a_sound_is_what_the_wave_module_wrote(wav: Callable[..., bytes], samples: list[int], rate: int) -> None:
    sound = decode({"body": wav(samples, rate)})

    assert isinstance(sound, Audio)
    assert (rate, torch.float32) == (sound.rate, sound.samples.dtype)
    assert samples == (sound.samples * 32768).tolist()


def test_other_chunks_around_a_sound_are_passed_over(wav: Callable[..., bytes]) -> None:
    body = wav([1, -1])
    listed = b"LIST" + struct.pack("<I", 6) + b"INFOab"
    longer = body[:4] + struct.pack("<I", len(body) - 8 + 2 * len(listed)) + body[8:36] + listed + body[36:] + listed

    assert [1 / 32768, -1 / 32768] == decode({"body": longer}).samples.tolist()


@pytest.mark.parametrize("length", [12, 20, 36, 43, 44, 45, 46, 83])
def test_a_sound_that_is_cut_off_is_refused(wav: Callable[..., bytes], length: int) -> None:
    body = wav(range(20))  # 44 bytes of header, 40 of sound

    with pytest.raises(BadRequestError, match=r"WAV body cannot be decoded|WAV body is cut off|one of 16 bits is expected"):
        decode({"body": body[:length]})


@pytest.mark.parametrize(
    ("how", "told"), [({"channels": 2}, "2 channels of 16 bits"), ({"width": 1}, "of 8 bits"), ({"width": 4}, "of 32 bits")]
)
def test_a_sound_of_another_kind_is_refused(wav: Callable[..., bytes], how: dict[str, int], told: str) -> None:
    with pytest.raises(BadRequestError, match=told):
        decode({"body": wav([0, 0, 0, 0], **how)})


@pytest.mark.parametrize("data", [b"", b"\0"], ids=["nothing", "half a sample"])
def test_a_sound_of_nothing_is_refused(wav: Callable[..., bytes], data: bytes) -> None:
    body = wav([])[:40] + struct.pack("<I", len(data)) + data

    with pytest.raises(BadRequestError, match=f"and {len(data) // 2} bytes"):
        decode({"body": body})


def decoded_or_refused(body: bytes) -> None:
    with suppress(BadRequestError):
        decode({"body": body})


BEGINNINGS = [
    b"",
    MAGIC,
    MAGIC + b"\x01\0",
    FOUR[:60],
    b"RIFF\0\0\0\0WAVE",
    b"RIFF\0\0\0\0WEBP",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
]


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=300))
@settings(deadline=1000 * QUICK_S)
def test_any_bytes_are_decoded_or_refused(beginning: bytes, rest: bytes) -> None:
    decoded_or_refused(beginning + rest)


def one_second() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\1\2" * 8000)
    return stream.getvalue()


@given(
    st.sampled_from([FOUR, one_second()]), st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=4)
)
@settings(deadline=1000 * QUICK_S)
def test_a_file_with_changed_bytes_is_decoded_or_refused(file: bytes, changes: list[tuple[int, int]]) -> None:
    body = bytearray(file)
    for place, value in changes:
        body[place] = value

    decoded_or_refused(bytes(body))


@pytest.mark.parametrize("number", [10**400, [[1.0], [10**400]]], ids=["alone", "in a list"])
def test_a_number_larger_than_any_float_is_refused(number: Any) -> None:
    with pytest.raises(BadRequestError, match="too large"):
        decode({"body": number})
