"""The shared handler that goes into every archive, and what proves its answers."""

from marline.handler._assemble import TASKS, assemble, handler_of, opened
from marline.handler._fake import FakeContext
from marline.handler._golden import Pair, difference, read_golden, write_golden
from marline.handler.collation import Sample, collate, tensors

__all__ = [
    "TASKS",
    "FakeContext",
    "Pair",
    "Sample",
    "assemble",
    "collate",
    "difference",
    "handler_of",
    "opened",
    "read_golden",
    "tensors",
    "write_golden",
]
