"""TorchServe's whole custom-service surface, each part on the real server: one server for all archives, each of them tiny."""

import base64
import io
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
import transformers
import yaml
from PIL import Image
from torch import nn

import marline.export
import marline.load
import marline.wrap
from marline.archive import archive, build
from marline.core import read_config
from marline.deploy import Server, serving
from marline.handler import adapted, handler_of
from models.gpt2_tiny.generate import FullModel

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent / "handlers"
ROOT = HERE.parents[2]
DIGITS, GPT2 = ROOT / "models" / "digits_cnn", ROOT / "models" / "gpt2_tiny"
BATCHED = ("module_entry", "class_entry", "shared_image", "shared_text", "generating")
SIZE, DELAY_MS = 2, 700
hf: Any = transformers


class Two(nn.Module):
    """Logits of two classes: the upper half's brightness and the lower's."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[2] // 2
        return torch.stack([images[:, :, :half].mean((1, 2, 3)), images[:, :, half:].mean((1, 2, 3))], 1)


class Segments(nn.Module):
    """Class 1 where an image is bright."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        bright = images.mean(1)
        return {"out": torch.stack([1 - bright, bright], 1)}


class Doubles(nn.Module):
    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return 2 * numbers


ARCHITECTURES = {
    "stock_object_detector": """
import torch
class Detector(torch.nn.Module):
    def forward(self, images):
        found = {"boxes": torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]), "labels": torch.tensor([1, 2])}
        return [{**found, "scores": torch.tensor([0.9, 0.7])} for _ in images]
""",
    "stock_text_classifier": """
import torch
class Texts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(20, 2, mode="sum")
        self.embedding.weight.data[:] = 0
        self.embedding.weight.data[7] = torch.tensor([1.0, 3.0])
    def forward(self, text, offsets):
        return self.embedding(text, offsets)
""",
}


@dataclass(frozen=True)
class Asking:
    """Sends requests to the one server."""

    server: Server

    def __call__(self, model: str, content: Any = None, *, to: str = "predictions", **how: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.server.client.tokens.inference}", **how.pop("headers", {})}
        with httpx2.Client(timeout=60, verify=False) as http:
            address = f"{self.server.client.inference_url}/{to}/{model}"
            return http.post(address, content=content, headers=headers, **how)

    def together(self, *requests: Callable[[], httpx2.Response]) -> list[httpx2.Response]:
        """All at the same moment, so that they are one batch."""
        with ThreadPoolExecutor(len(requests)) as askers:
            return [each.result() for each in [askers.submit(request) for request in requests]]

    def counted(self) -> dict[str, float]:
        """The values of the metrics address whose name is ours, by everything before the value."""
        lines = (self.server.folder / "config.properties").read_text().splitlines()
        address = next(line.partition("=")[2] for line in lines if line.startswith("metrics_address="))
        with httpx2.Client(timeout=10, verify=False) as http:
            text = http.get(f"{address}/metrics").text
        found = [line.rpartition(" ") for line in text.splitlines() if line.startswith("Marline")]
        return {name: float(value) for name, _, value in found}

    def more_batches(self, model: str, before: Mapping[str, float]) -> set[tuple[int, float]]:
        """How many batches of which size a model has had since: the frontend reads a worker's lines soon, not at once."""
        deadline = time.monotonic() + 5
        found: set[tuple[int, float]] = set()
        while not found and time.monotonic() < deadline:
            counted = self.counted()
            names = [name for name in counted if "MarlineBatches" in name and f'ModelName="{model}"' in name]
            more = {name: counted[name] - before.get(name, 0) for name in names}
            found = {(int(name.split('"')[1]), count) for name, count in more.items() if count}
            time.sleep(0.05)
        return found


def scripted(module: nn.Module, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(module.eval()).save(str(file))  # type: ignore[no-untyped-call]
    return file


def config_file(folder: Path, name: str, **values: Any) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"deviceType": "cpu", "minWorkers": 1, "maxWorkers": 1, **values}))
    return file


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every archive by its name."""
    folder = tmp_path_factory.mktemp("archives")
    names = folder / "index_to_name.json"
    names.write_text(json.dumps({"0": "upper", "1": "lower", "2": "other"}))
    own = {"batchSize": SIZE, "maxBatchDelay": DELAY_MS, "mine": {"factor": 7, "words": ["a", "b"]}}

    def made(name: str, handler: str = "", **told: Any) -> Path:
        return build(name, handler=handler or HERE / f"{name}.py", export_path=folder / "store", **told).file

    doubles = scripted(Doubles(), folder / "doubles.pt")
    found = {
        "module_entry": made("module_entry", serialized_file=doubles, config_file=config_file(folder, "module", **own)),
        "named_entry": made("named_entry", f"{HERE}/named_entry.py:serve_it", version="3.5"),
        "class_entry": made("class_entry", config_file=config_file(folder, "class", **own)),
        "from_scratch": made("from_scratch", serialized_file=doubles),
        "stock_image_classifier": made(
            "stock_image_classifier", serialized_file=scripted(Two(), folder / "two.pt"), extra_files=[names]
        ),
        "stock_image_segmenter": made("stock_image_segmenter", serialized_file=scripted(Segments(), folder / "segments.pt")),
        "shared_image": made(
            "shared_image",
            checkpoint_file=DIGITS / "model.safetensors",
            extra_files=[DIGITS / "model.py"],
            config_file=config_file(folder, "image", **own),
        ),
    }
    for name, source in ARCHITECTURES.items():
        (folder / name).mkdir()
        (folder / name / "architecture.py").write_text(source)
        vocabulary = folder / name / "source_vocab.pt"
        torch.save({"good": 7, "bad": 8, "good bad": 9}, vocabulary)
        found[name] = made(name, architecture_file=folder / name / "architecture.py", extra_files=[names, vocabulary])
    found["generating"] = generating(folder)
    found["shared_text"] = text_archive(folder / "text")
    return found


def generating(folder: Path) -> Path:
    """gpt2_tiny with its loop, behind the shared handler of texts, asked for `generate`."""
    torch.manual_seed(0)
    config = hf.GPT2Config.from_pretrained(GPT2, attn_implementation="eager")
    network = adapted(hf.GPT2LMHeadModel(config).eval(), ["input_ids", "attention_mask"])
    ids = torch.arange(5)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tracing says of transformers' own code
        traced = torch.jit.trace(network, (ids, torch.ones_like(ids)), strict=False)  # type: ignore[no-untyped-call]
    section = {
        "method": "generate",
        "parameters": {"max_new_tokens": 3, "temperature": 0.0, "top_k": 1},
        "most": {"max_new_tokens": 8},
    }
    return build(
        "generating",
        handler=handler_of(ROOT, "generating", "text-generation", None),
        serialized_file=scripted(FullModel(traced), folder / "generating.pt"),
        extra_files=[GPT2 / "tokenizer.json", GPT2 / "tokenizer_config.json"],
        config_file=config_file(folder, "generating", handler=section, batchSize=SIZE, maxBatchDelay=DELAY_MS),
        export_path=folder / "store",
    ).file


def text_archive(folder: Path) -> Path:
    """A tiny BERT through the pipeline's own stages, with the eager model beside its graph for explanations."""
    source = folder / "source"
    source.mkdir(parents=True)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 377}
    config = hf.BertConfig(**sizes, max_position_embeddings=64, num_labels=3, architectures=["BertForSequenceClassification"])
    config.save_pretrained(source)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GPT2 / name, source)
    told = ["load.weights=random", "export.method=trace", "export.batch_sizes=[1,2]", "archive.explain=true"]
    wanted = read_config([f"model={source}", "export.fuse=false", "export.channels_last=false", *told]).config
    out = {stage: folder / stage for stage in ("load", "wrap", "export", "archive")}
    for each in out.values():
        each.mkdir()
    loaded = marline.load.load("shared_text", wanted.load, out["load"])
    wrapped = marline.wrap.wrap("shared_text", wanted.wrap, loaded, out["wrap"])
    handler = handler_of(ROOT, "shared_text", loaded.facts["task"], None)
    exported = marline.export.export("shared_text", wanted.export, loaded, wrapped, handler, out["export"])
    archived = archive("shared_text", wanted.archive, wrapped, exported, handler, "cpu", out["archive"])
    return archived.path(archived.facts["archive"])


@pytest.fixture(scope="module")
def ask(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """A server with all of them."""
    with serving(read_config(["model=digits_cnn"]).config.deploy, tmp_path_factory.mktemp("logs")) as server:

        def load(name: str) -> None:
            size = SIZE if name in BATCHED else 1
            server.load(archives[name], name, batch_size=size, max_batch_delay_ms=DELAY_MS, workers=1)

        with ThreadPoolExecutor(2) as loaders:
            for loading in [loaders.submit(load, name) for name in archives]:
                loading.result()
        yield Asking(server)


def json_of(reply: httpx2.Response, status: int = 200) -> Any:
    assert status == reply.status_code, reply.text
    return json.loads(reply.text)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def halves(top: int, bottom: int) -> bytes:
    image = Image.new("RGB", (224, 224), (top,) * 3)
    image.paste((bottom,) * 3, (0, 112, 224, 224))
    return png(image)


def six() -> bytes:
    return (DIGITS / "samples" / "0_is_6.png").read_bytes()


def b64(body: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(body).decode()}


def test_a_function_of_the_module_is_an_entry_and_knows_its_context(ask: Asking) -> None:
    one, other = ask.together(
        lambda: ask("module_entry", json=[1.0, 2.0], headers={"X-Mine": "first"}),
        lambda: ask("module_entry", json=[3.0], headers={"X-Mine": "second"}),
    )

    told = json_of(one)
    assert [[2.0, 4.0], [6.0]] == [told["model"], json_of(other)["model"]]
    assert ("module_entry", "cpu") == (told["model_name"], told["device"])
    assert (2, None) == (told["properties"]["batch_size"], told["properties"]["gpu_id"])
    assert ["MAR-INF", "doubles.pt", "model-config.yaml", "module_entry.py"] == told["files"]
    assert {"modelName": "module_entry", "serializedFile": "doubles.pt"}.items() <= told["manifest"]["model"].items()
    assert ({"factor": 7, "words": ["a", "b"]}, "cpu") == (told["config"]["mine"], told["config"]["deviceType"])
    assert ["first", "second"] == [json_of(reply)["headers"]["X-Mine"] for reply in (one, other)]
    for reply in (one, other):
        assert {json_of(reply)["request_id"]} == {reply.headers["x-request"], reply.headers["x-request-id"]}
    assert one.headers["x-request-id"] != other.headers["x-request-id"]


def test_a_function_of_any_name_is_an_entry(ask: Asking) -> None:
    reply = ask("named_entry", json={"data": 1})

    assert (200, "3.5") == (reply.status_code, reply.text)


def test_the_first_of_several_classes_is_the_handler(ask: Asking) -> None:
    replies = ask.together(lambda: ask("class_entry", json={"data": 6}), lambda: ask("class_entry", json={"data": 1}))

    assert [{"product": 42}, {"product": 7}] == [json_of(reply) for reply in replies]


@pytest.mark.parametrize("name", ["module_entry", "class_entry"])
def test_a_code_of_ones_own_is_the_answer_to_the_whole_batch(ask: Asking, name: str) -> None:
    replies = ask.together(lambda: ask(name, json={"data": 1}), lambda: ask(name, json={"data": "raise"}))

    assert [513, 513] == [reply.status_code for reply in replies]
    assert {"Some Prediction Error"} == {json.loads(reply.text)["message"] for reply in replies}


def test_a_code_of_ones_own_is_one_samples_answer_on_the_shared_handler(ask: Asking) -> None:
    before = ask.counted()

    good, bad = ask.together(lambda: ask("shared_image", six()), lambda: ask("shared_image", b"a cat"))

    assert 6 == json_of(good)["output"]["digit"]
    assert {"code": 513, "type": "PredictionException", "message": "a cat is no image"} == json_of(bad, 513)
    assert {(1, 1.0)} == ask.more_batches("shared_image", before)


def test_a_handler_from_scratch_predicts_and_explains(ask: Asking) -> None:
    kind = "application/json"
    form = {"data": ("data.json", b"[1.0, 2.0]", kind), "target": ("target.json", b"1", kind)}

    assert [2.0, 4.0] == json_of(ask("from_scratch", json=[1.0, 2.0]))
    assert [2.0, 0.0] == json_of(ask("from_scratch", json=[1.0, 2.0], to="explanations"))
    assert [0.0, 4.0] == json_of(ask("from_scratch", files=form, to="explanations"))


def test_a_stock_image_classifier_is_extended(ask: Asking) -> None:
    answer = json_of(ask("stock_image_classifier", halves(255, 0)))
    attributions = json_of(ask("stock_image_classifier", halves(255, 0), to="explanations"))

    assert answer["lower"] > 0.9  # it was turned
    assert {"lower", "upper"} == set(answer)
    assert (3, 224, 224) == tuple(torch.tensor(attributions).shape)


def test_a_stock_image_segmenter_is_extended(ask: Asking) -> None:
    assert {"classes": [[1.0] * 4] * 2 + [[0.0] * 4] * 2} == json_of(ask("stock_image_segmenter", halves(255, 0)))


def test_a_stock_object_detector_is_extended(ask: Asking) -> None:
    assert [{"lower": [0.0, 1.0, 2.0, 3.0], "score": pytest.approx(0.9)}] == json_of(ask("stock_object_detector", six()))


def test_a_stock_text_classifier_is_extended(ask: Asking) -> None:
    answer = json_of(ask("stock_text_classifier", b"Good, <b>bad</b>!"))
    explained = json_of(ask("stock_text_classifier", b"Good, bad!", to="explanations"))

    likely = torch.tensor([1.0, 3.0]).softmax(0).tolist()
    assert {"UPPER": pytest.approx(likely[0]), "LOWER": pytest.approx(likely[1])} == answer
    assert ["good", "bad"] == explained["words"]


def test_one_batch_of_a_prediction_and_an_explanation_answers_each_rightly(ask: Asking) -> None:
    before = ask.counted()

    predicted, explained = ask.together(
        lambda: ask("shared_image", six()),
        lambda: ask("shared_image", json={"data": b64(six()), "target": 3}, to="explanations"),
    )

    assert 6 == json_of(predicted)["output"]["digit"]
    told = json_of(explained)["explanation"]
    assert (3, 3) == (told["target"], told["digit"])  # the second is its subclass's word
    assert (8, 8) == tuple(torch.tensor(told["attributions"]).shape)
    assert {(1, 1.0)} == ask.more_batches("shared_image", before)


@pytest.mark.parametrize("target", [0, 6])
def test_the_attributions_of_an_image_add_up_to_what_they_explain(ask: Asking, target: int) -> None:
    with Image.open(DIGITS / "samples" / "0_is_6.png") as image:
        black = png(Image.new(image.mode, image.size))
    seen, nothing = ask.together(lambda: ask("shared_image", six()), lambda: ask("shared_image", black))
    told = json_of(ask("shared_image", files={"data": six(), "target": (None, str(target))}, to="explanations"))["explanation"]

    change = json_of(seen)["output"]["logits"][target] - json_of(nothing)["output"]["logits"][target]
    assert target == told["target"]
    assert torch.tensor(told["attributions"]).sum().item() == pytest.approx(told["sum"], abs=1e-4)
    assert abs(change - told["sum"]) == pytest.approx(told["delta"], abs=1e-3)
    assert told["delta"] < 0.05 * abs(change)


def test_explanations_that_cannot_be_are_each_their_own_matter(ask: Asking) -> None:
    none, refused = ask.together(
        *(
            lambda target=target: ask("shared_image", json={"data": b64(six()), "target": target}, to="explanations")
            for target in (10, 9)
        )
    )

    assert "target=10: the model has the outputs 0 to 9" == json_of(none, 400)["message"]
    assert "nobody may know about 9" == json_of(refused, 514)["message"]


def test_the_attributions_of_a_text_come_from_the_eager_model_beside_its_graph(ask: Asking, archives: dict[str, Path]) -> None:
    repository = archives["shared_text"].parents[1] / "wrap" / "repository"
    model = hf.BertForSequenceClassification.from_pretrained(repository).eval()
    text = b"a rope has two ends"
    predicted, explained = ask.together(
        lambda: ask("shared_text", text),
        lambda: ask("shared_text", json={"data": text.decode(), "target": 2}, to="explanations"),
    )

    told = json_of(explained)["explanation"]
    ids = torch.tensor([told["token_ids"]])
    with torch.inference_mode():
        logits, nothing = model(ids).logits[0], model(torch.full_like(ids, model.config.pad_token_id)).logits[0]
    assert logits.softmax(0).topk(3).values.tolist() == pytest.approx(
        [one["probability"] for one in json_of(predicted)["output"]], abs=1e-4
    )
    assert 2 == told["target"]
    assert ids.shape[1] == len(told["attributions"])
    assert float(logits[2] - nothing[2]) == pytest.approx(told["sum"], abs=told["delta"] + 1e-6)
    assert told["delta"] < 0.05 * abs(told["sum"])


def test_a_method_is_called_with_the_parameters_of_each_request(ask: Asking, archives: dict[str, Path]) -> None:
    whole = torch.jit.load(str(archives["generating"].parents[1] / "generating.pt"))  # type: ignore[no-untyped-call]
    tokenizer = hf.AutoTokenizer.from_pretrained(GPT2, local_files_only=True)
    ids = torch.tensor([tokenizer("two ends")["input_ids"]])
    made = {count: tokenizer.decode(whole.generate(ids, count, 0.0, 1)[0, ids.shape[1] :].tolist()) for count in (3, 5, 7)}

    replies = ask.together(
        lambda: ask("generating", b"two ends"),
        lambda: ask("generating", json={"data": "two ends", "parameters": {"max_new_tokens": 5}}),
        lambda: ask("generating", files={"data": b"two ends", "max_new_tokens": (None, "7")}),
        lambda: ask("generating/invoke?max_new_tokens=5", b"two ends", to="models"),
    )

    assert [made[3], made[5], made[7], made[5]] == [json_of(reply)["output"]["text"] for reply in replies]


def test_parameters_that_are_refused_are_that_requests_matter(ask: Asking) -> None:
    told = [{"max_new_tokens": 9}, {"max_new_token": 3}, {"temperature": "hot"}, {"max_new_tokens": 1}]

    replies = ask.together(*(lambda each=each: ask("generating", json={"data": "a rope", "parameters": each}) for each in told))

    assert [400, 400, 400, 200] == [reply.status_code for reply in replies]
    assert [
        "max_new_tokens=9 is more than 8",
        "unknown parameter 'max_new_token'; known are max_new_tokens, temperature, top_k",
        "temperature='hot': expected float, as in temperature=0.0",
    ] == [json.loads(reply.text)["message"] for reply in replies[:3]]


def test_each_batch_is_counted_by_its_size_at_the_metrics_address(ask: Asking, until: Callable[..., float]) -> None:
    before = ask.counted()

    replies = ask.together(*[lambda: ask("shared_image", six())] * SIZE)

    assert [6] * SIZE == [json_of(reply)["output"]["digit"] for reply in replies]
    assert {(SIZE, 1.0)} == ask.more_batches("shared_image", before)
    for stage in ("Preprocess", "Inference", "Postprocess"):
        name = f'Marline{stage}{{BatchSize="{SIZE}",ModelName="shared_image",Level="Model"'
        until(lambda name=name: 0 < milliseconds(ask.counted(), name) - milliseconds(before, name) < 10_000, 5, name)


def milliseconds(counted: Mapping[str, float], name: str) -> float:
    return sum(value for key, value in counted.items() if key.startswith(name))


def test_a_customised_description_is_no_bad_request(ask: Asking) -> None:
    client = ask.server.client
    with httpx2.Client(timeout=30, verify=False) as http:
        headers = {"Authorization": f"Bearer {client.tokens.management}"}
        reply = http.get(f"{client.management_url}/models/shared_image?customized=true", headers=headers)

    assert "shared_image" == json_of(reply)[0]["modelName"]
