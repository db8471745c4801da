"""The shared handler that goes into every archive, and what proves its answers."""

from marline.handler._assemble import TASKS, assemble, beside, handler_of, imported, opened, shared_files
from marline.handler._fake import FakeContext
from marline.handler._from_scratch import answering
from marline.handler._golden import Pair, difference, read_golden, write_golden
from marline.handler.batch_facts import DIMENSIONS, METRICS
from marline.handler.collation import Collate, Sample, as_list, collate, tensors
from marline.handler.eager_model import EAGER, Positional, adapted, load_base
from marline.handler.graph_file import load_graph, read_signature

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
