"""A scripted whole around a traced network: the seed's own example, and a language model that generates on its own."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from marline.core import ExportConfig, ExportError
from marline.export._graph import Proven, prove_graph
from marline.export._making import wholly
from marline.export._torchscript import load, script, trace
from marline.handler import adapted

hf: Any = transformers
ROOT = Path(__file__).parents[3]
GREEDY, SAMPLED = {"temperature": 0.0, "top_k": 1}, {"temperature": 0.8, "top_k": 5}
# transformers is made impossible to import, then the file answers on its own.
ALONE = """
import sys, warnings
sys.modules["transformers"] = None
warnings.simplefilter("ignore", FutureWarning)
import torch
model = torch.jit.load(sys.argv[1])
ids = torch.tensor([[int(word) for word in sys.argv[2].split(",")]])
print(*model.generate(ids, 12, 0.0, 1)[0].tolist())
"""
CANNOT_BE_SCRIPTED = """
import torch


class Whole(torch.nn.Module):
    def __init__(self, trained_model):
        super().__init__()
        self.model = trained_model

    def forward(self, x):
        return {self.model(x)}.pop()
"""


class MyModel(nn.Module):
    """Stands for what was trained."""

    def __init__(self, init_args: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4, init_args)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


class Sampler(nn.Module):
    """As the seed writes it, with `super()` put right."""

    def __init__(self, args: int) -> None:  # noqa: ARG002 - the seed's own words
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Here you can specify any operations needed for sampling from the output of the model
        y = x + 1
        return y  # noqa: RET504 - the seed's own words


class FullModel(nn.Module):
    """As above."""

    def __init__(self, trained_model: nn.Module, sampler: nn.Module) -> None:
        super().__init__()
        self.model = trained_model
        self.sampler = sampler

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The full process occurs here
        logits = self.model(x)
        output: torch.Tensor = self.sampler(logits)
        return output


@pytest.mark.parametrize("traced", [False, True], ids=["scripted all together", "around a traced network"])
def test_the_seeds_full_model_runs_as_written(traced: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained_model = MyModel(3).eval()
    sampler = Sampler(3)
    eager = FullModel(trained_model, sampler)
    inner = trace(trained_model, (torch.rand(2, 4),))[0] if traced else trained_model

    scripted_model = script(FullModel(inner, sampler))
    torch.jit.save(scripted_model, str(tmp_path / "filename.pt"))

    x = torch.rand(5, 4)
    assert torch.allclose(eager(x), load(tmp_path / "filename.pt")(x))


@dataclass(frozen=True)
class Generating:
    """The original model, the eager whole around it, and what was proven of both."""

    original: Any
    whole: Any
    proven: Proven
    graph: Any


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, quick: Callable[..., ExportConfig]) -> Generating:
    """models/gpt2_tiny with random weights, exported with its loop."""
    torch.manual_seed(0)
    original = hf.GPT2LMHeadModel(hf.GPT2Config.from_pretrained(ROOT / "models" / "gpt2_tiny")).eval()
    with torch.no_grad():
        for weights in original.parameters():
            weights.mul_(3)  # new weights are so small that every token is as likely as the next
    samples = [
        {"input_ids": torch.randint(1, 377, (length,)), "attention_mask": torch.ones(length, dtype=torch.int64)}
        for length in (5, 9, 12)
    ]
    calls = {"generate": [{"max_new_tokens": 8, **GREEDY}, {"max_new_tokens": 8, **SAMPLED}]}
    config = quick(method="hybrid", whole=str(ROOT / "models/gpt2_tiny/generate.py") + ":FullModel", calls=calls)
    whole = wholly(adapted(original, ["input_ids", "attention_mask"]), config)
    file = tmp_path_factory.mktemp("gpt2") / "model.pt"
    return Generating(original, whole, prove_graph(whole, samples, config, file), load(file))


def prompts(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(1, 377, (rows, tokens), generator=torch.Generator().manual_seed(rows + tokens))


def test_the_proof_covers_the_network_and_every_call_of_generate(gpt2: Generating) -> None:
    cases = {row.case for row in gpt2.proven.rows if row.stage == "reloaded"}

    assert ("hybrid", ["forward", "generate"]) == (gpt2.proven.method, gpt2.proven.signature["methods"])
    assert {"batch 1", "batch 2", "batch 3", "batch 3, length 3", "batch 3, length 11"} <= cases
    assert 4 == sum(case.startswith("generate(max_new_tokens=8") for case in cases)
    assert ["logits", "output"] == sorted({row.output for row in gpt2.proven.rows})


@pytest.mark.parametrize(("rows", "tokens", "new"), [(1, 5, 20), (3, 9, 12), (2, 1, 60)])
def test_greedy_generation_is_the_originals_token_for_token(gpt2: Generating, rows: int, tokens: int, new: int) -> None:
    ids = prompts(rows, tokens)
    told = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": new, "eos_token_id": None}

    expected = gpt2.original.generate(ids, **told, pad_token_id=0)
    got = gpt2.graph.generate(ids, new, **GREEDY)

    assert expected.tolist() == got.tolist()
    assert len(set(got[0, tokens:].tolist())) > 1  # not one token over and over, which would prove little


def test_a_text_may_grow_longer_than_the_context(gpt2: Generating) -> None:
    ids = prompts(1, 60)

    assert gpt2.whole.generate(ids, 10, **GREEDY).tolist() == gpt2.graph.generate(ids, 10, **GREEDY).tolist()


def test_sampling_under_a_seed_is_the_eager_wholes(gpt2: Generating) -> None:
    ids = prompts(2, 6)
    drawn = []
    for model, seed in ((gpt2.whole, 3), (gpt2.graph, 3), (gpt2.graph, 4)):
        torch.manual_seed(seed)
        with torch.inference_mode():
            drawn.append(model.generate(ids, 20, **SAMPLED).tolist())

    assert drawn[0] == drawn[1] != drawn[2]


def test_the_file_generates_where_transformers_cannot_be_imported(gpt2: Generating, tmp_path: Path) -> None:
    ids = prompts(1, 5)
    words = [sys.executable, "-I", "-c", ALONE, str(gpt2.proven.file), ",".join(map(str, ids[0].tolist()))]

    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    assert (0, "") == (done.returncode, done.stderr)
    assert gpt2.whole.generate(ids, 12, **GREEDY)[0].tolist() == [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_library\n", r"whole\.py:Whole cannot be imported: ModuleNotFoundError: .*no_such_library"),
        ("class Other:\n    pass\n", r"whole\.py:Whole cannot be imported: AttributeError: .*no attribute 'Whole'"),
        (
            CANNOT_BE_SCRIPTED,
            r"hybrid: the compiler says[\s\S]+whole\.py:11: a set in forward",
        ),
        (
            "import torch\n\n\nclass Whole(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n",
            r"whole\.py:Whole cannot be made around the network: TypeError: .*takes 1 positional argument",
        ),
    ],
    ids=["an import fails", "no such class", "it cannot be scripted", "it takes no network"],
)
def test_a_whole_that_cannot_be_used_is_refused(
    source: str, told: str, tmp_path: Path, quick: Callable[..., ExportConfig]
) -> None:
    (tmp_path / "whole.py").write_text(source)
    config = quick(method="hybrid", whole=f"{tmp_path / 'whole.py'}:Whole")

    with pytest.raises(ExportError, match=told):
        prove_graph(wholly(nn.Linear(4, 2), config), [torch.ones(4)] * 2, config, tmp_path / "model.pt")
