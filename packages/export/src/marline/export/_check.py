"""Whether a model can become TorchScript, in seconds: to be asked before it is trained."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from marline.core import ExportConfig, ExportError, Manifest, ParityError
from marline.export._export import base_of, in_users_file, inputs_of
from marline.export._graph import prove_in_process
from marline.export._making import methods_of, wholly
from marline.handler import assemble, opened


def check(config: ExportConfig, loaded: Manifest, wrapped: Manifest, handler: Path) -> Iterator[tuple[str, str | None]]:
    """Each method that `export.method` allows, and what is in its way: None where the model answers alike in every case.

    Cases are those of the export; nothing is written, and no other process and no speed is looked at.
    """
    with tempfile.TemporaryDirectory(prefix="marline-") as work:
        assemble(handler, wrapped.path("repository"), Path(work))
        with opened(Path(work), handler.stem) as instance:
            inputs = inputs_of(instance, sorted(loaded.path("sample").iterdir()))
            module = wholly(base_of(wrapped, inputs[0]), config)
            for method in methods_of(module, config):
                try:
                    with in_users_file(loaded):
                        prove_in_process(module, inputs, method, config, instance.functions.collate)
                except (ExportError, ParityError) as error:
                    yield method, str(error)
                else:
                    yield method, None
