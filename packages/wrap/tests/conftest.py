"""Checkpoints as stage load leaves them, wrapped, and used by processes without marline."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from marline.core import Component, LoadConfig, Manifest, WrapConfig, seal
from marline.telemetry import fake_collector
from marline.wrap import wrap

hf: Any = transformers
HERE = Path(__file__).parent
TINY = """
import torch
from torch import nn



class Tiny(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, classes)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, SCALE]), persistent=False)
        self.shift = torch.tensor(0.5)

    def forward(self, images):
        return self.head(self.norm(images).mean((2, 3)) * self.scale + self.shift)


class Boxes(Tiny):
    def forward(self, images):
        return {"boxes": super().forward(images), "count": 3}


def init_function(classes=2):
    return Tiny(classes)


def boxes(classes=2):
    return Boxes(classes)
"""
LABELS = {"0": "{{ 7 * 7 }}\"'\n", "1": "plain", "2": "plain"}
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
WORDS = [
    "this",
    "is",
    "a",
    "long",
    "example",
    "input",
    "string",
    "containing",
    "special",
    "characters",
    "numbers",
    "and",
    "words",
    ".",
    "$",
    "?",
    "-",
    ",",
]
SAM = {
    "vision_config": {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_dim": 64,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
    "mask_decoder_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "mlp_dim": 32,
        "iou_head_hidden_dim": 16,
    },
}
IMAGES = {"pixel_values": {"shape": [2, 3, 32, 32]}}
ONE_CHANNEL = {"pixel_values": {"shape": [2, 1, 32, 32]}}
TEXT = {"input_ids": [[2, 5, 7], [3, 1, 9]]}


def told(**changes: Any) -> WrapConfig:
    """A configuration that reports nothing, with changes."""
    silent = {"collector_url": None, "detail": "minimal", "sample_rate": 1.0, "methods": (), "components": ()}
    return WrapConfig(**{**silent, "push": False, "repository": None, "private": True, **changes})


def sealed(run: Path, model: str, facts: Mapping[str, Any]) -> Manifest:
    """The manifest of stage load for the checkpoint in RUN/load."""
    (run / "wrap").mkdir()
    settings: dict[str, Any] = {
        "source": "torchvision:resnet18",
        "weights": "random",
        "seed": 0,
        "task": "auto",
        "init_kwargs": {},
    }
    settings |= {"torch_dtype": "auto", "device_map": None, "offload_folder": None, "max_shard_size": "5GB", "rename": {}}
    config = LoadConfig(**settings, trust_remote_code=False, allow_pickle=False, samples=None)
    common = {"weights": {"kind": "random", "detail": "seed 7"}, "parameters": 42, "init_kwargs": {}}
    return seal(run / "load", model=model, config=config, inputs=[], facts={**common, **facts}, started=time.monotonic())


def randomised(model: Any) -> Any:
    """The same model with weights that make every part of it count."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()


@pytest.fixture(scope="session")
def config() -> Callable[..., WrapConfig]:
    """Make a configuration that differs from a silent one as told."""
    return told


@pytest.fixture(scope="session")
def loaded() -> Callable[..., Manifest]:
    """Make the manifest of stage load in RUN/load: of a tiny custom model, or of a torchvision one."""

    def make(
        run: Path,
        model: str = "tiny",
        source: str = "python:models/tiny/model.py:init_function",
        scale: str = "4.0",
        task: str = "image-classification",
    ) -> Manifest:
        checkpoint = run / "load" / "checkpoint"
        checkpoint.mkdir(parents=True)
        torch.manual_seed(7)
        kind, _, rest = source.partition(":")
        if kind == "torchvision":
            module, init_kwargs = torchvision.models.get_model(rest, weights=None), {}
            (checkpoint / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        else:
            code: dict[str, Any] = {}
            text = TINY.replace("SCALE", scale)
            exec(text, code)  # noqa: S102 - as load does with the file
            module, init_kwargs = code[rest.rpartition(":")[2]](classes=3), {"classes": 3}
            module.norm.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
            (checkpoint / "source.py").write_text(text)
        save_file(module.state_dict(), checkpoint / "model.safetensors", metadata={"format": "pt"})
        identity = {"source": source, "task": task, "init_kwargs": init_kwargs}
        (checkpoint / "config.json").write_text(json.dumps({**identity, "id2label": LABELS}))
        return sealed(run, model, {**identity, "kind": "module", "input": "image"})

    return make


@pytest.fixture(scope="session")
def loaded_transformers() -> Callable[..., Manifest]:
    """Make the manifest of stage load in RUN/load of a model that transformers has, with random weights."""

    def make(run: Path, model: Any, auto_class: str, task: str, name: str = "bert", **saving: Any) -> Manifest:
        checkpoint = run / "load" / "checkpoint"
        randomised(model).save_pretrained(checkpoint, **saving)
        if task.startswith("text"):
            vocabulary = {word: index for index, word in enumerate(["[UNK]", "[PAD]", *WORDS])}
            tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(checkpoint)
        (checkpoint / "LICENSE").write_text("Do as you like.\n")
        (checkpoint / "README.md").write_text("---\nlicense: mit\n---\n# The source's own card\n")
        facts = {"kind": "transformers", "custom_code": False, "revision": None, "processors": [], "auto_class": auto_class}
        architectures = json.loads((checkpoint / "config.json").read_text())["architectures"]
        return sealed(run, name, {**facts, "source": "./somewhere", "task": task, "architectures": architectures})

    return make


@pytest.fixture(scope="session")
def loaded_custom() -> Callable[..., Manifest]:
    """Make the manifest of stage load in RUN/load of a repository with code of its own; `auto_map` replaces its own."""

    def make(run: Path, auto_map: Mapping[str, Any] | None = None, **files: str) -> Manifest:
        checkpoint = run / "load" / "checkpoint"
        checkpoint.mkdir(parents=True)
        torch.manual_seed(7)
        weights = {"own.embed.weight": torch.randn(20, 4), "head.weight": torch.randn(3, 4), "head.bias": torch.randn(3)}
        save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
        for file in (HERE / "own").glob("*.*"):
            (checkpoint / file.name).write_bytes(file.read_bytes())
        (checkpoint / "convert.py").write_text("import tensorflow\nprint 'a script of older days'\n")
        for name, text in files.items():
            (checkpoint / f"{name}.py").write_text(text)
        content = json.loads((checkpoint / "config.json").read_text())
        content["auto_map"] = content["auto_map"] if auto_map is None else auto_map
        (checkpoint / "config.json").write_text(json.dumps(content))
        facts = {"kind": "transformers", "custom_code": True, "auto_class": "AutoModelForSequenceClassification"}
        return sealed(run, "own", {**facts, "source": "./own", "task": "text-classification", "architectures": []})

    return make


def bert() -> Any:
    """A BERT that classifies."""
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return hf.BertForSequenceClassification(hf.BertConfig(vocab_size=30, max_position_embeddings=16, num_labels=3, **small))


def gpt2() -> Any:
    """A GPT-2 in half precision."""
    made = hf.GPT2Config(
        vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=32, pad_token_id=1, bos_token_id=0, eos_token_id=0
    )
    return hf.GPT2LMHeadModel(made).to(torch.bfloat16)


def vit() -> Any:
    """A vision transformer."""
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return hf.ViTForImageClassification(hf.ViTConfig(image_size=32, patch_size=16, num_labels=3, **small))


def sam() -> Any:
    """A SAM whose first layer attends within windows and whose second attends everywhere."""
    return hf.SamModel(hf.SamConfig(**SAM))


def mixtral() -> Any:
    """A Mixtral, whose experts have other names in files than in memory."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return hf.MixtralForCausalLM(hf.MixtralConfig(vocab_size=30, num_key_value_heads=1, num_local_experts=2, **small))


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, Callable[[], Any]]:
    """Models of transformers, small and random."""
    return {"bert": bert, "gpt2": gpt2, "vit": vit, "sam": sam}


SPLIT = Component(
    path="vision_encoder.layers.*.attn",
    layer=str(HERE.parents[2] / "models" / "sam_tiny" / "split_attention.py") + ":SamVisionAttentionSplit",
)


@pytest.fixture(scope="session")
def split() -> Component:
    """The replacement of SAM's attention."""
    return SPLIT


@dataclass(frozen=True)
class Seen:
    """What one bare process saw, and how often the collector got "MODEL METHOD OUTCOME", from both."""

    told: dict[str, Any]
    log: str
    reports: Counter[str]


@pytest.fixture(scope="session")
def seen(
    tmp_path_factory: pytest.TempPathFactory,
    loaded: Callable[..., Manifest],
    loaded_transformers: Callable[..., Manifest],
    loaded_custom: Callable[..., Manifest],
) -> tuple[Seen, Seen]:
    """Two processes at the same moment, with one empty module cache: one with all models, one with two in the other order.

    `one` and `two` are both named tiny, in folders of one name, and differ in code alone; only `one` reports.
    """
    root = tmp_path_factory.mktemp("bare")
    heads = {"bert": "AutoModelForSequenceClassification", "gpt2": "AutoModelForCausalLM", "sam": "AutoModelForMaskGeneration"}
    with fake_collector("/reports") as collector:

        def make(run: str, source: Manifest, use: Mapping[str, Any], *, silent: bool = False, **changes: Any) -> None:
            url = None if silent else f"{collector.url}/{source.model}"
            wrap(source.model, told(collector_url=url, **changes), source, root / run / "wrap")
            (root / run / "use.json").write_text(json.dumps(use))

        images = {"inputs": IMAGES, "bad": ONE_CHANNEL, "labels": [0, 1]}
        texts = {"inputs": TEXT, "bad": {"input_ids": [[99]]}, "labels": [0, 1]}
        make("one", loaded(root / "one"), images)
        make("two", loaded(root / "two", scale="8.0"), images, silent=True)
        make("mobile", loaded(root / "mobile", "mobile-v3", "torchvision:mobilenet_v3_small"), images, silent=True)
        boxes = loaded(root / "boxes", "boxes", "python:model.py:boxes", task="object-detection")
        make("boxes", boxes, {"inputs": IMAGES, "bad": ONE_CHANNEL})
        make("own", loaded_custom(root / "own"), texts)
        made = loaded_transformers(root / "bert", bert(), heads["bert"], "text-classification")
        make("bert", made, {**texts, "base": "AutoModel", "tokens": True})
        made = loaded_transformers(root / "gpt2", gpt2(), heads["gpt2"], "text-generation", "gpt2", max_shard_size="5KB")
        make("gpt2", made, {**texts, "labels": TEXT["input_ids"], "generate": True, "tokens": True, "base": "AutoModel"})
        made = loaded_transformers(root / "vit", vit(), "AutoModelForImageClassification", "image-classification", "vit")
        make("vit", made, {**images, "bad": {"pixel_values": {"shape": [1, 3, 8, 8]}}})
        made = loaded_transformers(root / "sam", sam(), heads["sam"], "mask-generation", "sam")
        points = {"pixel_values": {"shape": [1, 3, 64, 64]}, "input_points": {"shape": [1, 1, 1, 2]}}
        make("sam", made, {"inputs": points, "bad": {"pixel_values": {"shape": [1, 1, 64, 64]}}}, components=(SPLIT,))
        made = loaded_transformers(root / "mixtral", mixtral(), heads["gpt2"], "text-generation", "mixtral")
        make("mixtral", made, {"inputs": TEXT, "bad": {"input_ids": [[99]]}})
        every = ["one", "two", "mobile", "boxes", "own", "bert", "gpt2", "vit", "sam", "mixtral"]
        processes = [_start(root, every), _start(root, ["two", "one"])]
        ended = [process.communicate(timeout=300) for process in processes]
    for process, (_, log) in zip(processes, ended, strict=True):
        assert 0 == process.returncode, log
    reports = Counter(
        f"{path.split('/')[2]} {event['method']} {event['status']}"
        for path, body in zip(collector.paths, collector.reports, strict=True)
        for event in body.get("events", [body])
    )
    first, second = (Seen(json.loads(out), log, reports) for out, log in ended)
    return first, second


def _start(root: Path, runs: list[str]) -> "subprocess.Popen[str]":
    env = {"HOME": str(root), "PATH": os.environ["PATH"], "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-W", "error", str(HERE / "bare.py"), *(str(root / run) for run in runs)]
    return subprocess.Popen(command, env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
