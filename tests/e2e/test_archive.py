"""Archives of files of a user's own on a real TorchServe: model-servers' samples, entry points, requirements per model."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from marline.archive import build
from marline.core import ServerError, read_config
from marline.deploy import Server, serving

pytestmark = pytest.mark.e2e

PACKAGE = "marline_e2e_pinned"
MODEL = """
import torch

class MyNetworkBlock(torch.nn.Module):
    def __init__(self, in_dim, out_dim):
        super().__init__()
        self.lin = torch.nn.Linear(in_dim, out_dim)
    def forward(self, x):
        x = self.lin(x)
        x = torch.relu(x)
        return x


class MyNetwork(torch.nn.Module):
    def __init__(self, in_dim, layer_dims):
        super().__init__()
        prev_dim = in_dim
        for i, dim in enumerate(layer_dims):
            setattr(self, f'layer{i}', MyNetworkBlock(prev_dim, dim))
            prev_dim = dim
        self.num_layers = len(layer_dims)
        self.output_proj = torch.nn.Linear(layer_dims[-1], 10)

    def forward(self, x):
        for i in range(self.num_layers):
            x = getattr(self, f'layer{i}')(x)
        return self.output_proj(x)
"""
HANDLER_MODEL = """
from model import MyNetwork
from base_handler import handler_factory

def init_function(in_dim, layer_dims):
    model = MyNetwork(in_dim, layer_dims)
    return model

handler = handler_factory(init_function=init_function, in_dim=4, layer_dims=[8, 6])
"""
RESNET = """
from pathlib import Path
from torchvision.models import resnet18, resnet50, ResNet18_Weights, ResNet50_Weights
from base_handler import handler_factory

def init_function(resnet_layers=18):
    # Function should return a torch.nn.module
    if resnet_layers == 18:
        resnet = resnet18(weights=None)
    elif resnet_layers == 50:
        resnet = resnet50(weights=None)
    return resnet


def preprocess(data):
    transforms = ResNet18_Weights.DEFAULT.transforms()
    return transforms(data)


def postprocess(data):
    prediction = data.squeeze(0).softmax(0)
    class_id = prediction.argmax().item()
    score = prediction[class_id].item()
    category_name = ResNet18_Weights.DEFAULT.meta["categories"][class_id]
    return score, class_id, category_name


def unpack_dependencies():
    Path(__file__).with_name("unpacked").touch()


def install_packages():
    Path(__file__).with_name("installed").touch()


handler = handler_factory(init_function=init_function,
                          preprocess_function=preprocess,
                          postprocess_function=postprocess,
                          install_packages=install_packages,
                          unpack_dependencies=unpack_dependencies,
                          resnet_layers=18)
"""
CONFIG = """# TorchServe controls.
minWorkers: 1
maxWorkers: 1
maxBatchDelay: 4000     # in msec
responseTimeout: 5200
batchSize: 4
deviceType: "cpu"   # [cpu, gpu, neuron]: theirs says gpu, which a server without GPUs refuses
deviceIds: [0,1,2,3] # gpu device ids allocated to this model.
system:
  extraFiles: "test.tar.gz"
  maxGPUMemory: 500
"""
SEVERAL = """
class Handler:
    def initialize(self, context):
        self.name = context.model_yaml_config["mine"]["name"]
    def handle(self, data, context):
        return [self.name] * len(data)

class Second(Handler):
    def handle(self, data, context):
        return ["second"] * len(data)

def answer(data, context):
    return [f"{context.manifest['model']['handler']}"] * len(data or [])
"""
ASKS = f"""
import {PACKAGE}

def handle(data, context):
    return [{PACKAGE}.VERSION] * len(data or [])
"""


def wheel(folder: Path, version: str) -> None:
    """A package of one line, as pip installs it."""
    info = f"{PACKAGE}-{version}.dist-info"
    entries = {
        f"{PACKAGE}/__init__.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    entries[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*entries, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{PACKAGE}-{version}-py3-none-any.whl", "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that installs, from a folder of two wheels and from nowhere else."""
    wheels = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        wheel(wheels, version)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PIP_FIND_LINKS", str(wheels))
        environment.setenv("PIP_NO_INDEX", "1")
        with serving(
            read_config(["model=digits_cnn"]).config.deploy, tmp_path_factory.mktemp("logs"), installs=True
        ) as running:
            yield running


@pytest.fixture
def serve(server: Server, tmp_path: Path) -> Callable[..., Callable[..., Any]]:
    """Build an archive of these files, load it, and return what asks it."""

    def make(name: str, texts: dict[str, str], **told: Any) -> Callable[..., Any]:
        folder = tmp_path / name
        folder.mkdir()
        for file, text in texts.items():
            (folder / file).write_text(text)
        files = {key: folder / value if key.endswith("_file") or key == "handler" else value for key, value in told.items()}
        built = build(name, **files, export_path=folder)
        server.load(built.file, name, batch_size=1, max_batch_delay_ms=100, workers=1)

        def ask(body: bytes = b"{}", kind: str = "application/json") -> Any:
            reply = server.client.predict(name, body, kind)
            assert 200 == reply.status, reply.body
            try:
                return json.loads(reply.body)
            except json.JSONDecodeError:
                return reply.body.decode()

        return ask

    return make


def test_two_models_pin_two_versions_of_one_package(serve: Callable[..., Callable[..., Any]]) -> None:
    told = {"handler": "asks.py", "requirements_file": "needs.txt", "requirements": "install"}
    one = serve("one", {"asks.py": ASKS, "needs.txt": f"{PACKAGE}==1.0\n"}, **told)
    two = serve("two", {"asks.py": ASKS, "needs.txt": f"{PACKAGE}==2.0\n"}, **told)

    assert [1.0, 2.0, 1.0] == [one(), two(), one()]


def test_what_pip_cannot_find_is_an_error_that_says_where_it_looked(
    serve: Callable[..., Callable[..., Any]], server: Server
) -> None:
    with pytest.raises(ServerError, match="PIP_FIND_LINKS") as refused:
        serve(
            "three",
            {"asks.py": ASKS, "needs.txt": f"{PACKAGE}==3.0\n"},
            handler="asks.py",
            requirements_file="needs.txt",
            requirements="install",
        )
    assert "Custom pip package installation failed" in str(refused.value)
    assert server.client.describe("three") is None


def test_the_sample_network_of_model_servers_runs_from_an_extra_archive(
    serve: Callable[..., Callable[..., Any]], tmp_path: Path
) -> None:
    packed, content = tmp_path / "test.tar.gz", MODEL.encode()
    with tarfile.open(packed, "w:gz") as archive:
        info = tarfile.TarInfo("model.py")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    namespace: dict[str, Any] = {}
    exec(MODEL, namespace)  # noqa: S102 - ours, from above
    network = namespace["MyNetwork"](4, [8, 6])
    torch.save(network.state_dict(), tmp_path / "checkpoint.pth")
    sample = torch.tensor([0.1, -0.2, 0.3, 0.4])

    ask = serve(
        "sample",
        {"handler_model.py": HANDLER_MODEL, "model-config.yaml": CONFIG},
        model_file="handler_model.py",
        config_file="model-config.yaml",
        checkpoint_file=tmp_path / "checkpoint.pth",
        extra_files=[packed],
    )

    told = torch.tensor(ask(json.dumps(sample.tolist()).encode())["output"])
    torch.testing.assert_close(told, network(sample[None])[0].detach())


def test_the_sample_resnet_of_model_servers_runs_with_its_hooks(
    serve: Callable[..., Callable[..., Any]], server: Server
) -> None:
    ask = serve("resnet", {"handler.py": RESNET}, model_file="handler.py")
    body = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(body, "PNG")

    score, class_id, name = ask(body.getvalue(), "image/png")["output"]

    assert 0 < score < 1
    assert 0 <= class_id < 1000
    assert isinstance(name, str)
    folders = [file.parent for file in server.folder.rglob("installed")]
    assert [True] == [(folder / "unpacked").exists() for folder in folders]


@pytest.mark.parametrize(
    ("handler", "answer"),
    [("several.py", "first"), ("several.py:Second", "second"), ("several.py:answer", "several.py:answer")],
)
def test_of_several_classes_and_functions_the_right_one_answers(
    handler: str, answer: str, serve: Callable[..., Callable[..., Any]]
) -> None:
    files = {"several.py": SEVERAL, "config.yaml": "mine: {name: first}\n"}

    assert answer == serve(handler.replace(":", "-"), files, handler=handler, config_file="config.yaml")()
