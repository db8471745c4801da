"""One bad sample never fails its neighbours."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
SAMPLES = sorted((Path(__file__).parents[3] / "models" / "digits_cnn" / "samples").iterdir())


@pytest.mark.parametrize("place", [0, 3, 7])
def test_one_bad_item_of_eight_gets_its_own_400_and_its_neighbours_their_answers(digits: Any, ask: Ask, place: int) -> None:
    bodies = [file.read_bytes() for file in SAMPLES]
    alone = [ask(digits, body)[0][0] for body in bodies]
    bodies[place] = b"no image"

    answers, context = ask(digits, *bodies)

    assert {place: (400, "Bad Request")} == context.statuses
    assert (400, "BadRequest") == (answers[place]["code"], answers[place]["type"])
    assert "expected a JPEG, PNG or WebP image" in answers[place]["message"]
    for index, answer in enumerate(answers):
        if index != place:
            assert alone[index]["output"]["digit"] == answer["output"]["digit"]
            assert alone[index]["output"]["probability"] == pytest.approx(answer["output"]["probability"], abs=1e-5)
    assert dict.fromkeys(range(8), "application/json") == context.content_types


def test_a_batch_of_bad_items_only_is_answered_too(digits: Any, ask: Ask) -> None:
    answers, context = ask(digits, b"", b"\xff", "text")

    assert [400, 400, 400] == [answer["code"] for answer in answers]
    assert {0, 1, 2} == set(context.statuses)


def png(image: Image.Image, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **how)
    return stream.getvalue()


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


def with_huge_text() -> bytes:
    chunks = PngInfo()
    chunks.add_text("bomb", "0" * 80_000_000, zip=True)
    return png(Image.new("L", (8, 8)), pnginfo=chunks)


def in_format(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind)
    return stream.getvalue()


NOISE = Image.effect_noise((64, 64), 80)
REFUSED = {
    "B01 empty": b"",
    "B04 half a JPEG": jpeg(NOISE)[: len(jpeg(NOISE)) // 2],
    "B04 half a PNG": png(NOISE)[: len(png(NOISE)) // 2],
    "B06 one byte": b"\xff",
    "B06 one letter": b"a",
    "B06 JPEG header": b"\xff\xd8\xff",
    "B06 PNG header": b"\x89PNG\r\n\x1a\n",
    "B06 WebP header": b"RIFF\x00\x00\x00\x00WEBP",
    "B08 GIF": in_format("GIF"),
    "B08 TIFF": in_format("TIFF"),
    "B08 BMP": in_format("BMP"),
    "B08 EPS": in_format("EPS"),
    "B08 SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "B09 16 bits of grey": png(Image.new("I;16", (8, 8), 32768)),
    "B11 text": "naïve".encode(),
    "B11 not UTF-8": "naïve".encode("latin-1"),
    "B13 malformed JSON": b'{"data": [1, 2,]}',
    "B13 UTF-16": '{"data": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_body_is_the_clients_mistake(digits: Any, ask: Ask, six: bytes, name: str) -> None:
    answers, context = ask(digits, six, REFUSED[name], six)

    unsupported = name in {"B08 GIF", "B08 TIFF", "B08 EPS"}  # SVG is text, and BMP begins like some
    expected = (415, "Unsupported Media Type") if unsupported else (400, "Bad Request")
    assert {1: expected} == context.statuses
    assert answers[1]["message"]
    assert [6, 6] == [answer["output"]["digit"] for answer in (answers[0], answers[2])]


def test_a_png_with_a_huge_text_is_refused_without_unpacking_it(digits: Any, ask: Ask) -> None:
    assert 400 == ask(digits, with_huge_text())[0][0]["code"]


def test_too_many_pixels_are_refused_before_they_are_decoded(digits: Any, ask: Ask) -> None:
    answers, _ = ask(digits, png(Image.new("1", (8000, 8000))))

    assert "the image has 8000 x 8000 pixels; 50000000 are allowed" == answers[0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        jpeg(Image.new("CMYK", (8, 8))),
        png(Image.new("P", (8, 8)), transparency=0),
        png(Image.new("LA", (8, 8))),
        png(Image.new("RGBA", (8, 8))),
        png(Image.new("1", (8, 8))),
        png(Image.new("L", (1, 1))),
        png(Image.new("L", (1, 20000))),
        jpeg(Image.new("L", (8, 8))) + b"trailing garbage",
    ],
    ids=["CMYK", "palette with alpha", "grey with alpha", "RGBA", "1 bit", "1 x 1", "1 x 20000", "trailing garbage"],
)
def test_unusual_images_are_converted_and_answered(digits: Any, ask: Ask, body: bytes) -> None:
    answers, context = ask(digits, body)

    assert {} == context.statuses
    assert answers[0]["output"]["digit"] in range(10)


def test_a_description_says_which_worker_answers(digits: Any) -> None:
    context = FakeContext(Path(), headers={0: {"describe": "True"}})

    assert [{"worker": os.getpid()}] == [json.loads(answer) for answer in digits.handle([{}], context)]
