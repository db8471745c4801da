"""Whether memory holds a batch in each of several workers; that is asked by loading them, as our handler tries one then."""

from collections.abc import Sequence
from pathlib import Path

from marline.core import WorkerError, progress
from marline.deploy import Server
from marline.tune._burst import TooLarge


def load_unless_too_large(
    server: Server, archive: Path, model: str, batch_size: int, delay_ms: int, workers: int
) -> WorkerError | None:
    """Load a model; what a worker said, with nothing loaded, where memory ended. WorkerError is raised for anything else."""
    try:
        server.load(archive, model, batch_size=batch_size, max_batch_delay_ms=delay_ms, workers=workers)
    except WorkerError as error:
        if "MemoryError" not in str(error) and "OutOfMemory" not in str(error):
            raise
        return error
    return None


def largest_batches(server: Server, archive: Path, model: str, sizes: Sequence[int], workers: Sequence[int]) -> dict[int, int]:
    """By number of workers above one, the largest of `sizes` that memory holds in each of them at once; 0 where none.

    The largest is tried first, and one that fits so many workers is the bound for more. The model must not be loaded, and is
    not afterwards. TooLarge where the fewest workers have no room for any.
    """
    found: dict[int, int] = {}
    rest = sorted(sizes, reverse=True)
    for number in sorted({*workers} - {1}):
        while rest:
            progress(0.12, f"room for {number} workers with batches of {rest[0]}")
            if load_unless_too_large(server, archive, model, rest[0], 1, number) is None:
                server.unload(model)
                break
            rest = rest[1:]
        found[number] = rest[0] if rest else 0
    if found.get(min(workers)) == 0:
        raise TooLarge(f"memory does not hold {model} in {min(workers)} workers; lower tune.workers")
    return found
