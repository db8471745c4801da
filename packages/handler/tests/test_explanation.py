"""Why an output is what it is; the frontend says in a header which requests ask."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from marline.handler import EAGER, FakeContext

Open = Callable[..., Any]
VIT = Path(__file__).parents[3] / "models" / "vit_tiny"
SQUARES = """
import torch
from base_handler import handler_factory
CALLS = []

class Squares(torch.nn.Module):
    def forward(self, numbers):
        CALLS.append(len(numbers))
        flat = numbers.flatten(1)
        return torch.stack([(flat ** 2).sum(1), 3 * flat[:, 0]], 1)

Squares.__module__ = "elsewhere"
handler = handler_factory(Squares, postprocess_function=lambda output: output{})
del Squares
"""
OWN = ", explain_function=lambda model, sample, target: [type(model).__name__, sample, target]"
TEXTS = """
import torch
from base_handler import handler_factory

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(9, 4)
        self.head = torch.nn.Linear(4, 3)
    def forward(self, input_ids, attention_mask):
        seen = torch.tanh(self.words(input_ids)) * attention_mask[..., None]
        return {"logits": self.head(seen.sum(1))}

Net.__module__ = "elsewhere"

def preprocess(data):
    return {"input_ids": data.long(), "attention_mask": torch.ones(len(data))}

handler = handler_factory(Net, preprocess, lambda output: output["logits"])
del Net
"""


def send(instance: Any, *requests: tuple[str, Any]) -> tuple[list[Any], FakeContext]:
    """(kind, body) of each; the answers, and the context with their statuses."""
    headers = {index: {"explain": "True" if kind == "explain" else "False"} for index, (kind, _) in enumerate(requests)}
    context = FakeContext(Path(), headers=headers)
    return [json.loads(text) for text in instance.handle([{"body": body} for _, body in requests], context)], context


@pytest.fixture
def squares(own: Open, tmp_path: Path) -> Any:
    instance = own(SQUARES.format(""))
    instance.initialize(FakeContext(tmp_path / "archive"))
    return instance


def test_a_batch_of_both_answers_each_and_predicts_only_what_was_asked_for(squares: Any) -> None:
    answers, context = send(squares, ("predict", [1.0, 2.0]), ("explain", [1.0, 2.0]), ("predict", [3.0, 0.0]))

    assert {} == context.statuses
    assert [{"output": [5.0, 3.0]}, {"output": [9.0, 9.0]}] == [answers[0], answers[2]]
    told = answers[1]["explanation"]
    assert (0, [1.0, 4.0]) == (told["target"], [round(value, 4) for value in told["attributions"]])
    assert told["sum"] == pytest.approx(5.0)
    assert told["delta"] == pytest.approx(0, abs=1e-4)
    assert 2 == vars(sys.modules[type(squares).__module__])["CALLS"][0]  # the batch of predictions


@pytest.mark.parametrize(
    "request_",
    [{"body": {"data": [1.0, 2.0], "target": 1}}, {"body": [1.0, 2.0], "target": b"1"}, {"body": [1.0, 2.0], "target": "1"}],
    ids=["JSON", "form", "query"],
)
def test_the_request_names_its_target(squares: Any, request_: dict[str, Any]) -> None:
    context = FakeContext(Path(), headers={0: {"explain": "True"}})

    told = json.loads(squares.handle([request_], context)[0])["explanation"]

    assert (1, [3.0, 0.0]) == (told["target"], [round(value, 4) for value in told["attributions"]])


@pytest.mark.parametrize("target", [2, -1, True, 1.0, "first", None, [0], 10**30])
def test_a_target_the_model_has_not_is_that_requests_mistake(squares: Any, target: Any) -> None:
    answers, context = send(
        squares, ("explain", {"data": [1.0, 2.0], "target": target}), ("explain", [1.0, 2.0]), ("predict", [1.0, 2.0])
    )

    assert {0: (400, "Bad Request")} == context.statuses
    assert answers[0]["message"].startswith("target=")
    assert ["explanation", "output"] == [next(iter(answer)) for answer in answers[1:]]


def test_explanations_are_not_counted_as_batches(squares: Any) -> None:
    counted = []
    squares.facts.record = lambda size, *_: counted.append(size)

    send(squares, ("explain", [1.0, 2.0]))
    send(squares, ("explain", [1.0, 2.0]), ("predict", [1.0, 2.0]), ("predict", [1.0, 2.0]))

    assert [2] == counted


def test_a_function_of_ones_own_takes_the_place_of_captum(own: Open, tmp_path: Path) -> None:
    instance = own(SQUARES.format(OWN))
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = send(instance, ("explain", {"data": [1.0, 2.0], "target": 7}))

    assert ["Squares", [1.0, 2.0], 7] == answers[0]["explanation"]


SUBCLASS = """
class Mine(handler):
    def get_insights(self, data_preprocess, raw_data, target):
        return {"insights": target, "raw": raw_data[0]["body"]}
    def explain_handle(self, data_preprocess, raw_data):
        return [super().explain_handle(data_preprocess, raw_data), "handled"]
handler = None
"""


def test_both_methods_can_be_overridden(own: Open, tmp_path: Path) -> None:
    text = SQUARES.format("") + SUBCLASS
    instance = own(text)
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = send(instance, ("explain", [1.0, 2.0]))

    assert [{"insights": 0, "raw": [1.0, 2.0]}, "handled"] == answers[0]["explanation"]


@pytest.mark.parametrize("length", [1, 5])
def test_the_attributions_of_tokens_add_up_to_the_change_of_the_score(own: Open, tmp_path: Path, length: int) -> None:
    instance = own(TEXTS)
    instance.initialize(FakeContext(tmp_path / "archive"))
    ids = list(range(1, 1 + length))

    answers, _ = send(instance, ("predict", ids), ("explain", {"data": ids, "target": 2}), ("predict", [0] * length))

    told = answers[1]["explanation"]
    assert (length, ids) == (len(told["attributions"]), told["token_ids"])
    change = answers[0]["output"][2] - answers[2]["output"][2]
    assert change == pytest.approx(told["sum"], abs=told["delta"] + 1e-4)
    assert told["delta"] < 0.02 * abs(change)


NO_EXPLANATION = {
    "a graph alone": ("handler = handler_factory()", True, "build it with archive.explain=true"),
    "tokens without a layer": (
        "handler = handler_factory(torch.nn.Identity, lambda data: {'input_ids': data.long()})",
        False,
        "the model embeds no tokens",
    ),
    "whole numbers": ("handler = handler_factory(torch.nn.Identity, lambda data: data.long())", False, "give the handler an"),
    "named numbers": ("handler = handler_factory(torch.nn.Identity, lambda data: {'x': data})", False, "give the handler an"),
}


@pytest.mark.parametrize("name", NO_EXPLANATION)
def test_what_cannot_be_explained_is_501_and_says_what_to_do(own: Open, tmp_path: Path, name: str) -> None:
    made, graph, message = NO_EXPLANATION[name]
    instance = own(f"import torch\nfrom base_handler import handler_factory\n{made}\n")
    if graph:
        torch.jit.script(torch.nn.Identity()).save(str(tmp_path / "archive" / "model.pt"))  # type: ignore[no-untyped-call]
    instance.initialize(FakeContext(tmp_path / "archive", "model.pt" if graph else None))

    answers, context = send(instance, ("explain", [1.0]))

    assert 501 == context.statuses[0][0]
    assert message in answers[0]["message"]


FOLDED = """
from base_handler import handler_factory
from image_input import to_pixels
handler = handler_factory(preprocess_function=to_pixels)
"""
MODELING = """
import torch
from transformers import PretrainedConfig, PreTrainedModel


class TinyConfig(PretrainedConfig):
    model_type = "marline_explained"


class Tiny(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = ""

    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.post_init()

    def forward(self, pixel_values):
        return pixel_values.mean((2, 3)) @ torch.ones(3, 2) * self.weight
"""


def test_a_graph_that_normalises_is_explained_by_the_eager_model_which_does_not(
    own: Open, tmp_path: Path, encoded: Callable[..., bytes], photo: Callable[[int, int], Any]
) -> None:
    folder, eager = tmp_path / "archive", tmp_path / "archive" / "eager"
    settings = json.loads((VIT / "preprocessor_config.json").read_text())
    eager.mkdir(parents=True)
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "folded": True}))
    instance = own(FOLDED)
    torch.jit.script(torch.nn.Identity()).save(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    (eager / "modeling_tiny.py").write_text(MODELING)
    (eager / "config.json").write_text(json.dumps({"model_type": "marline_explained"}))
    save_file({"weight": torch.tensor([1.0, 2.0])}, eager / "model.safetensors", metadata={"format": "pt"})
    (eager / EAGER).write_text(json.dumps({"base_class": "modeling_tiny.Tiny", "exported_module": None, "names": None}))
    instance.initialize(FakeContext(folder, "model.pt"))
    image = photo(settings["size"]["width"], settings["size"]["height"])

    answers, _ = send(instance, ("explain", {"data": {"b64": base64_of(encoded(image, "PNG"))}, "target": 1}))

    told = answers[0]["explanation"]
    raw = torch.tensor(list(image.tobytes())).view(image.height, image.width, 3).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(settings[name]).view(-1, 1, 1) for name in ("image_mean", "image_std"))
    assert float(2 * ((raw - mean) / std).mean((1, 2)).sum()) == pytest.approx(told["sum"], rel=1e-3)


def base64_of(body: bytes) -> str:
    return base64.b64encode(body).decode()


WITHOUT = """
import json, sys
sys.path.insert(0, sys.argv[1])
sys.modules["captum"] = None
from pathlib import Path
import my_handler
from marline.handler import FakeContext
instance = my_handler.handler()
instance.initialize(FakeContext(Path(sys.argv[1])))
context = FakeContext(Path(), headers={0: {"explain": "True"}})
print(instance.handle([{"body": [1.0, 2.0]}, {"body": [1.0, 2.0]}], context), "matplotlib" in sys.modules)
print(context.statuses)
"""


def test_without_captum_predictions_are_answered_and_explanations_say_what_is_missing(own: Open, tmp_path: Path) -> None:
    own(SQUARES.format(""))
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT, str(tmp_path / "archive")]

    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    lines = done.stdout.splitlines()
    assert "explanations need what is not installed where the server runs: " in lines[0]
    assert '{"output":[5.0,3.0]}' in lines[0]
    assert lines[0].endswith("False")
    assert "{0: (501, 'Prediction Error')}" == lines[1]
