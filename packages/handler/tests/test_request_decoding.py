"""Request bodies become tensors, sounds and images, or the client's mistake: nothing else, and soon."""

import io
import json
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
import safetensors.torch
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


@given(st.dictionaries(st.text(min_size=1, max_size=5), NUMBERS, min_size=1, max_size=4), st.booleans())
def test_tensors_are_what_the_safetensors_library_loads_with_fractions_as_float32(arrays: Any, described: bool) -> None:
    given_ = {name: torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape)) for name, array in arrays.items()}
    body = safetensors.torch.save(given_, {"format": "pt"} if described else None)

    decoded = decode({"body": body})

    found = {next(iter(given_)): decoded} if len(given_) == 1 else decoded
    expected = safetensors.torch.load(body)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        wanted = tensor.float() if tensor.is_floating_point() else tensor
        assert (wanted.dtype, wanted.shape) == (found[name].dtype, found[name].shape)
        assert torch.equal(wanted, found[name])


def test_brain_floats_are_read_which_numpy_has_not() -> None:
    body = safetensors.torch.save({"x": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)})

    assert ([1.5, -2.0], torch.float32) == (decode({"body": body}).tolist(), decode({"body": body}).dtype)


def safe(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(low: Any = 0, high: Any = 8, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [low, high]}


ZEROS = b"\0" * 8
LYING = {
    "an end past the data": safe({"a": entry(0, 80)}, ZEROS),
    "a beginning past the data": safe({"a": entry(80, 88)}, ZEROS),
    "a negative beginning": safe({"a": entry(-8, 0)}, ZEROS),
    "an end before its beginning": safe({"a": entry(0, 8), "b": entry(8, 0, shape=(0,))}, ZEROS),
    "a gap": safe({"a": entry(0, 8), "b": entry(16, 24)}, 3 * ZEROS),
    "an overlap": safe({"a": entry(0, 8), "b": entry(4, 12)}, 2 * ZEROS),
    "data that nobody names": safe({"a": entry(0, 8)}, 2 * ZEROS),
    "too little data": safe({"a": entry(0, 8)}, ZEROS[:7]),
    "a shape of more": safe({"a": entry(shape=(3,))}, ZEROS),
    "a shape that wraps": safe({"a": entry(shape=(4611686018427387905, 4))}, ZEROS),
    "a huge shape": safe({"a": entry(shape=(2**31, 2**31))}, ZEROS),
    "a negative shape": safe({"a": entry(shape=(-1, -2))}, ZEROS),
    "a shape of words": safe({"a": entry(shape="2")}, ZEROS),
    "an unknown type": safe({"a": entry(dtype="F128")}, ZEROS),
    "a type that is no word": safe({"a": entry(dtype=[])}, ZEROS),
    "no type": safe({"a": {"shape": [2], "data_offsets": [0, 8]}}, ZEROS),
    "offsets of words": safe({"a": entry("0", "8")}, ZEROS),
    "one offset": safe({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, ZEROS),
    "an entry that is none": safe({"a": 3}, ZEROS),
    "no tensor": safe({}),
    "a description alone": safe({"__metadata__": {"a": "b"}}),
    "a broken header": safe(b"{" * 20),
    "a deep header": safe(b'{"a":' + b"[" * 9_000),
    "a long header": safe(b"{" + b" " * 20_000 + b"}"),
    "NaN": safe({"a": entry()}, struct.pack("<2f", math.nan, 1)),
}


@pytest.mark.parametrize("name", LYING)
def test_safetensors_that_lie_are_refused_soon(name: str) -> None:
    began = time.monotonic()

    with pytest.raises(BadRequestError, match="the safetensors body cannot be decoded: "):
        decode({"body": LYING[name]})

    assert time.monotonic() - began < QUICK_S


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_another_length_is_no_safetensors_or_refused(length: int) -> None:
    with pytest.raises(BadRequestError):
        decode({"body": safe({"a": entry()}, b"\xff" * 8, length)})


@pytest.mark.parametrize("begin", decoding.decode_bytes.__globals__["OTHERS"])
@given(rest=st.binary(max_size=50))
def test_a_format_that_is_known_but_not_read_is_said_to_be_unsupported(begin: bytes, rest: bytes) -> None:
    with pytest.raises(BadRequestError, match="which is not read here") as error:
        decode({"body": begin + rest})

    assert (415, "Unsupported Media Type") == (error.value.code, error.value.phrase)


BEGINNINGS = [
    b"",
    MAGIC,
    MAGIC + b"\x01\0",
    FOUR[:60],
    b"RIFF\0\0\0\0WAVE",
    b"RIFF\0\0\0\0WEBP",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    struct.pack("<Q", 60) + b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[',
    safe({"a": entry()}),
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
    st.sampled_from([FOUR, one_second(), safetensors.torch.save({"a": torch.zeros(3, 5), "b": torch.ones(1)})]),
    st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=4),
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
