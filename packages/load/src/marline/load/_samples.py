"""Sample inputs: photographs that ship inside scikit-image, or a folder of the user's own."""

from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from marline.core import RequestError

# Free to use and of different sizes, because decoding is part of what a server does:
# astronaut and rocket are in the public domain (NASA), chelsea and coffee are CC0 (scikit-image's docstrings say so).
PHOTOGRAPHS = {"astronaut.png": 384, "chelsea.png": 300, "coffee.png": 400, "rocket.jpg": 427}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def write_samples(own: Path | None, folder: Path) -> list[Path]:
    """Put sample images into `folder` and return them in order; JPEG at quality 90 where they come from scikit-image."""
    folder.mkdir()
    if own is not None:
        files = sorted(file for file in own.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise RequestError(f"load.samples={own} holds no image; expected files ending in {', '.join(sorted(SUFFIXES))}")
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
        return sorted(folder.iterdir())
    spec = find_spec("skimage")  # located, not imported: only its files are wanted
    assert spec is not None, "scikit-image is a declared dependency"
    assert spec.origin is not None, "scikit-image is a package"
    for name, height in PHOTOGRAPHS.items():
        with Image.open(Path(spec.origin).parent / "data" / name) as image:
            scaled = image.convert("RGB").resize((round(image.width * height / image.height), height), Image.Resampling.BICUBIC)
            scaled.save(folder / f"{Path(name).stem}.jpg", quality=90)
    return sorted(folder.iterdir())
