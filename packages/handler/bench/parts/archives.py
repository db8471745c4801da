"""What is served here: archives of the pipeline, the same models for the others, small ones of our own, and photos to send."""

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive
from PIL import Image, ImageOps

from marline.archive import Serving, to_yaml
from marline.archive._mar import write_mar
from marline.core import Manifest, StageError, newest, project_root, read_config
from marline.handler import Pair, assemble, load_base, write_golden
from packages.handler.bench.parts.environments import packages

PIPELINE_S = 600.0
PHOTO, PHOTO_BYTES = (500, 375), 39_000  # an ordinary photo of ImageNet
SERVED = Path(__file__).parents[1] / "served"
QUEUE = 1000
CAPTUM, JSONPICKLE = "captum==0.9.0", "jsonpickle==4.1.4"


@dataclass(frozen=True, slots=True)
class Life:
    """The stages of one model up to its archive."""

    loaded: Manifest
    wrapped: Manifest
    exported: Manifest
    archived: Manifest

    @property
    def archive(self) -> Path:
        return self.archived.path(self.archived.facts["archive"])


def life(model: str, *words: str) -> Life:
    """What `nox -s archive -- model=MODEL` makes, or finds that it has made before; `words` are more of its words."""
    told = [sys.executable, "-m", "pipelines", f"model={model}", *words, "until=archive"]
    ran = subprocess.run(told, capture_output=True, text=True, timeout=PIPELINE_S, check=False)
    if ran.returncode != 0:
        raise StageError(f"{' '.join(told[1:])} ended with code {ran.returncode}: {ran.stderr.strip()[-600:]}")
    artifacts = project_root() / read_config([f"model={model}"]).config.artifacts
    return Life(*(newest(artifacts, model, stage) for stage in ("load", "wrap", "export", "archive")))


def photos(loaded: Manifest, folder: Path) -> list[Path]:
    """The stage's sample photos as JPEGs of one size, each as near to 39 kB as its quality can bring it."""
    made = []
    for file in sorted((loaded.folder / "sample").glob("*.jpg")):
        with Image.open(file) as image:
            cut = ImageOps.fit(image.convert("RGB"), PHOTO)
        bodies = [_jpeg(cut, quality) for quality in range(30, 98)]
        made.append(folder / f"photo-{file.name}")
        made[-1].write_bytes(min(bodies, key=lambda body: abs(len(body) - PHOTO_BYTES)))
    return made


def _jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def scripted(made: Life, folder: Path) -> Path:
    """The eager model, scripted and no more: what TorchServe's documentation has users give to its handlers."""
    base = load_base(made.wrapped.path("repository"), made.wrapped.facts["base_class"], made.wrapped.facts["exported_module"])
    file = folder / f"{made.wrapped.model}.scripted.pt"
    torch.jit.script(base).save(str(file))  # type: ignore[no-untyped-call]
    return file


def labels(made: Life, folder: Path) -> Path:
    """The file that TorchServe's own handlers read labels from."""
    config = json.loads((made.wrapped.path("repository") / "config.json").read_text())
    file = folder / "index_to_name.json"
    file.write_text(json.dumps(config["id2label"]))
    return file


def theirs(name: str, handler: str, serialized: Path, extra: Sequence[Path], folder: Path, how: str = "zip-store") -> Path:
    """An archive made by torch-model-archiver; a folder among the extra files gives what is in it.

    Its queue is as long as ours: with TorchServe's 100 a load that fills large batches is refused, not answered slowly.
    """
    told = folder / "queue.yaml"
    told.write_text(f"jobQueueSize: {QUEUE}\n")
    config = ModelArchiverConfig(
        model_name=name,
        handler=handler,
        version="1.0",
        serialized_file=str(serialized),
        extra_files=",".join(map(str, extra)),
        config_file=str(told),
        runtime="python3",
        export_path=str(folder),
        archive_format=how,
        force=True,
    )
    generate_model_archive(config)
    return folder / f"{name}.mar"


def stock(made: Life, name: str, folder: Path, handler: str = "image_classifier", extra: Sequence[Path] = ()) -> Path:
    """TorchServe's image classifier around the scripted model; captum, which it needs to be imported, travels along."""
    needed = [labels(made, folder), packages("captum", [CAPTUM]), *extra]
    return theirs(name, handler, scripted(made, folder), needed, folder)


def pickled(made: Life, name: str, folder: Path) -> Path:
    """A handler in model-servers' style around the scripted model."""
    return theirs(name, str(SERVED / "pickled.py"), scripted(made, folder), [packages("jsonpickle", [JSONPICKLE])], folder)


def own(
    name: str, handler: Path, files: Mapping[str, Path], folder: Path, *, pairs: Sequence[Pair] = (), workers: int = 1
) -> Path:
    """A small archive around a handler file of the shared base and a model.pt among the files."""
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as work:
        if pairs:
            write_golden(Path(work, "golden.json"), pairs)
        copied = {file.name: file for file in assemble(handler, Path(work), Path(work))}
        golden = {"golden.json": Path(work, "golden.json")} if pairs else {}
        told: dict[str, Any] = {
            "batch_size": 8,
            "max_batch_delay_ms": 10,
            "workers": workers,
            "response_timeout_s": 60,
            "startup_timeout_s": 120,
            "job_queue_size": QUEUE,
            "device": "cpu",
        }
        write_mar(
            folder / f"{name}.mar",
            model=name,
            version="1.0",
            handler=handler.name,
            serialized="model.pt",
            files={**copied, **golden, **files},
            config=to_yaml(Serving(**told)),
        )
    return folder / f"{name}.mar"
