"""Modules made from random lines with planted faults: each is refused, or its graph answers like the module itself.

The compiler and the diagnosis read source, so every module is written to a file and imported.
"""

import hashlib
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from marline.core import ExportConfig, ExportError, ParityError
from marline.export._graph import prove_in_process
from marline.export._making import METHODS
from marline.export._torchscript import Script, free_devices, freeze

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F

CALLS = []


class Mutant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
"""
HARMLESS = (
    "y = self.linear(y)",
    "y = self.norm(y)",
    "y = torch.relu(y)",
    "y = y + x.mean(-1, keepdim=True)",
    "y = y * torch.arange(y.shape[-1], device=y.device)",
    "y = F.dropout(y, 0.5, training=self.training)",
    "y = torch.where(y > 0, y, -2 * y)",
    "y = torch.cat([y, x], 0)[: x.shape[0]]",
    "y = y.reshape(x.shape[0], -1)",
)
FAULTY = (
    "y = y + torch.zeros(int(x.shape[0]), 4)",
    "y = y * float(x.max())",
    "y = y / int(x.shape[0])",
    "y = torch.stack([self.linear(row) for row in y])",
    "y = torch.stack([y[i] * i for i in range(int(y.shape[0]))])",
    "y = y * 2 if bool(y.sum() > 0) else y - 1",
    "y = y if bool(x.abs().max() < 3) else y.clamp(-1, 1)",
    "y = y * 3 if float(x.abs().max()) > 1000 else y",
    "y = y - 1 if torch.allclose(y, y.flip(0)) else y",
    "y = y[: int((x[:, 0] > 0).sum()) + 1]",
    "y = F.dropout(y, 0.5)",
    "y = y + torch.rand_like(y)",
    "y = x.mul_(2) + y",
    "y = y.double()",
    "y = y.double() if torch.jit.is_scripting() else y",
    "y = y[:1].expand_as(y) if torch.jit.is_tracing() else y",
    "self.seen += 1",
    "y = y + self.seen.add_(1)",
    "CALLS.append(1); y = y + len(CALLS)",
    "y = torch.from_numpy(y.detach().numpy() * 2)",
    "y = y + torch.ones(4, device='cpu')",
    "y = y.log()",
    "y = y.view(2, -1)",
    "y = F.batch_norm(y, self.seen, self.seen + 1, training=True)",
    "y = y / y.norm()",
    "y = y + y.argmax(0).tolist()[0]",
    "y = {1: y}.get(int(x.shape[0]), y * 3)",
    "y = y + (1 if len(x) > 3 else 0)",
)
LINES = st.lists(st.sampled_from(HARMLESS), max_size=2)
MUTANTS = st.tuples(LINES, st.lists(st.sampled_from(FAULTY), max_size=2), LINES).map(lambda parts: [*itertools.chain(*parts)])
SAMPLES = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
FRESH = [
    scale * torch.randn(size, 4, generator=torch.Generator().manual_seed(10 * size + scale))
    for size in (1, 2, 4, 5, 7, 12)
    for scale in (1, 2, 3000)
]


@contextmanager
def mutant(lines: list[str], folder: Path) -> Iterator[nn.Module]:
    """A module whose forward does these lines."""
    source = HEAD + "".join(f"        {line}\n" for line in lines) + "        return y\n"
    file = folder / f"mutant_{hashlib.sha256(source.encode()).hexdigest()[:16]}.py"  # hypothesis knows a failure by its place
    file.write_text(source)
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[file.stem] = module  # the compiler looks names up there
    try:
        spec.loader.exec_module(module)
        torch.manual_seed(0)
        yield module.Mutant().eval()
    finally:
        del sys.modules[file.stem]


def first_proven(module: nn.Module, config: ExportConfig) -> Script | None:
    """What `prove_graph` would go on with; the file itself is proven elsewhere, as that takes seconds."""
    for method in METHODS[config.method]:
        with suppress(ExportError, ParityError):
            return prove_in_process(module, SAMPLES, method, config)
    return None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=MUTANTS, method=st.sampled_from(["auto", "script", "trace"]))
def test_a_mutant_is_refused_or_its_graph_answers_like_it(
    lines: list[str], method: str, tmp_path: Path, quick: Callable[..., ExportConfig]
) -> None:
    config = quick(method=method, batch_sizes=(1, 2, 3, 8))
    with mutant(lines, tmp_path) as module:
        graph = first_proven(module, config)
        if graph is None:
            return
        frozen = freeze(graph, [])
        free_devices(frozen)
        with torch.inference_mode():
            for batch in FRESH:
                try:
                    expected = module(batch.clone())
                except RuntimeError:  # what the module itself cannot take, its graph need not
                    continue
                for made in (graph, frozen):
                    torch.testing.assert_close(made(batch.clone()), expected, atol=1e-3, rtol=1e-3, equal_nan=True)
