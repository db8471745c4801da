"""The shared handler that goes into every archive, and what proves its answers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from marline.handler._assemble import EAGER, TASKS, assemble, beside, handler_of, imported, opened, shared_files
from marline.handler._fake import FakeContext
from marline.handler._golden import Pair, difference, read_golden, write_golden
from marline.handler.batch_facts import DIMENSIONS, METRICS

if TYPE_CHECKING:
    from marline.handler._from_scratch import answering
    from marline.handler.collation import Collate, Sample, as_list, collate, tensors
    from marline.handler.eager_model import Positional, adapted, load_base
    from marline.handler.graph_file import load_graph, read_signature

_LATER = {  # these import torch, which takes seconds that commands without a model need not wait for
    "answering": "_from_scratch",
    **dict.fromkeys(("Collate", "Sample", "as_list", "collate", "tensors"), "collation"),
    **dict.fromkeys(("Positional", "adapted", "load_base"), "eager_model"),
    **dict.fromkeys(("load_graph", "read_signature"), "graph_file"),
}

__all__ = [
    "DIMENSIONS",
    "EAGER",
    "METRICS",
    "TASKS",
    "Collate",
    "FakeContext",
    "Pair",
    "Positional",
    "Sample",
    "adapted",
    "answering",
    "as_list",
    "assemble",
    "beside",
    "collate",
    "difference",
    "handler_of",
    "imported",
    "load_base",
    "load_graph",
    "opened",
    "read_golden",
    "read_signature",
    "shared_files",
    "tensors",
    "write_golden",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
