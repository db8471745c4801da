"""Stage 4: from TorchScript to an archive that needs nothing but TorchServe and torch."""

import tempfile
import time
from pathlib import Path

from marline.archive._build import carry_requirements, serve_by
from marline.archive._files import add, extras
from marline.archive._mar import with_config, write_mar
from marline.archive._read import read_mar
from marline.archive._serving import Serving, handler_of_yaml, to_yaml
from marline.core import ArchiveConfig, Manifest, RequestError, file_sha256, seal, write_json
from marline.handler import EAGER, assemble
from marline.telemetry import FILE

EXPORTED = ("model.pt", "golden.json", "preprocessor_config.json")
TRACKER = "marline_tracker.py"  # the name the base handler imports it by


def archive(
    model: str, config: ArchiveConfig, wrapped: Manifest, exported: Manifest, handler: Path, device: str, out: Path
) -> Manifest:
    """Write `<model>.mar`, its `model-config.yaml` and `contents.json`; `device` is cpu or gpu.

    A handler from scratch has no serialized file, and nothing of ours that it does not import but the tracker.
    """
    started = time.monotonic()
    serving = Serving(
        batch_size=config.batch_size,
        max_batch_delay_ms=config.max_batch_delay_ms,
        workers=config.workers,
        response_timeout_s=config.response_timeout_s,
        startup_timeout_s=config.startup_timeout_s,
        job_queue_size=config.job_queue_size,
        device=device,
        device_ids=config.device_ids,
    )
    file = out / f"{model}.mar"
    with tempfile.TemporaryDirectory(prefix="marline-") as work:
        copied = assemble(handler, wrapped.path("repository"), Path(work))
        files = {path.name: path for path in copied}
        files |= {name: exported.path(name) for name in exported.outputs if name in EXPORTED}
        serialized: str | None = "model.pt"
        if wrapped.facts.get("kind") == "handler":
            serialized = None
        elif serialized not in files:
            repository = _eager_files(wrapped.path("repository"), exported)
            serialized = next(name for name in repository if name.endswith((".safetensors", ".safetensors.index.json")))
            files = {**repository, **files}
        elif config.explain:
            files |= {f"eager/{name}": path for name, path in _eager_files(wrapped.path("repository"), exported).items()}
        files |= {TRACKER: FILE, "tracker.json": wrapped.path("repository/tracker.json")}
        add(files, extras(config.extra_files, Path(work) / "extras"))
        write_mar(
            file,
            model=model,
            version=config.version,
            handler=serve_by(handler, None, files, Path(work)),
            serialized=serialized,
            requirements=carry_requirements(config.requirements_file, config.requirements, files, Path(work)),
            files=files,
            config=to_yaml(serving, {**(exported.facts.get("serve") or {}), **_micro(config)}),
        )
    contents = read_mar(file)
    (out / "model-config.yaml").write_text(contents.config)
    write_json(out / "contents.json", {"manifest": contents.manifest, "sizes": contents.sizes})
    facts = {"archive": file.name, "sha256": file_sha256(file), "size_bytes": file.stat().st_size, "version": config.version}
    return seal(out, model=model, config=config, inputs=[wrapped, exported], facts=facts, started=started)


def _micro(config: ArchiveConfig) -> dict[str, int]:
    return {} if config.micro_batch_size is None else {"micro_batch_size": config.micro_batch_size}


def _eager_files(repository: Path, exported: Manifest) -> dict[str, Path]:
    """The untracked model's code, configuration and weights, which serve or explain it; an index comes first."""
    if EAGER not in exported.outputs:
        raise RequestError("archive.explain=true needs an eager model, and the source of this one is TorchScript; leave it out")
    files = sorted(repository.iterdir(), key=lambda file: (not file.name.endswith(".index.json"), file.name))
    return {EAGER: exported.path(EAGER)} | {
        file.name: file
        for file in files
        if file.suffix in {".py", ".json", ".safetensors"} and not file.name.startswith("tracked_")
    }


def tuned(source: Path, serving: Serving, file: Path) -> str:
    """Write a copy of an archive that asks to be served like `serving`, its other sections as they are; returns its sha256."""
    with_config(source, to_yaml(serving, handler_of_yaml(read_mar(source).config)), file)
    return file_sha256(file)
