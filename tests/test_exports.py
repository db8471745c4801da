"""Every model there is becomes a graph that is proven, in a fresh process with torch alone and in C++ as well."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

import marline.export
import marline.load
import marline.wrap
from marline.core import ExportConfig, Manifest, RequestError, known_models, project_root, read_config
from marline.export._folding import Pixels
from marline.export._graph import prove_graph
from marline.handler import adapted, as_list, handler_of

QUICK = ["export.batch_sizes=[1,2,3]", "export.fuse=false", "export.channels_last=false"]
METHODS = {"digits_cnn": "script", "gpt2_tiny": "hybrid"}  # what auto finds, and what the configuration asks for; else trace
SERVED = ("efficientnet_lite0", "minilm", "mobilenet_v3_large", "resnet50", "silero_vad")  # proven in e2e/test_models.py
WITHOUT_A_MODULE = ("digits_sklearn",)  # a handler from scratch: there is nothing to make a graph of
NARROW_SWIN = {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": [7, 7]}
NARROW_VIT = {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
TORCHVISION: dict[str, Callable[[], torch.nn.Module]] = {  # of the transformers few and narrow layers
    "resnet18": lambda: models.resnet18(weights=None),
    "swin_t": lambda: models.SwinTransformer(**NARROW_SWIN),
    "vit_b_16": lambda: models.VisionTransformer(**NARROW_VIT),
    "deeplabv3": lambda: models.segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None, aux_loss=True),
}


def exported(model: str, run: Path, *words: str) -> Manifest:
    """Stages load, wrap and export of a configured model, in a folder of their own."""
    root = project_root()
    config = read_config([f"model={model}", *QUICK, *words]).config
    folders = [run / stage for stage in ("load", "wrap", "export")]
    for folder in folders:
        folder.mkdir()
    loaded = marline.load.load(config.model, config.load, folders[0])
    wrapped = marline.wrap.wrap(config.model, config.wrap, loaded, folders[1])
    handler = handler_of(root, config.model, loaded.facts["task"], config.handler)
    return marline.export.export(config.model, config.export, loaded, wrapped, handler, folders[2])


def export_config(**changed: Any) -> ExportConfig:
    told = read_config(["model=digits_cnn", *QUICK]).config.export
    return told.model_copy(update=changed)


def proven_in(rows: list[dict[str, Any]]) -> set[str]:
    return {row["stage"] for row in rows}


@pytest.mark.parametrize("model", [name for name in known_models(project_root()) if name not in (*SERVED, *WITHOUT_A_MODULE)])
def test_a_configured_model_is_exported_and_proven_everywhere(model: str, tmp_path: Path) -> None:
    facts = exported(model, tmp_path).facts

    assert METHODS.get(model, "trace") == facts["method"]
    assert {"exported", "frozen", "reloaded"} <= proven_in(facts["parity"])
    assert ("C++" in proven_in(facts["parity"])) != any("C++" in told for told in facts["skipped"])
    assert [] == facts["signature"]["libraries"]


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_model_of_torchvision_is_exported_and_proven_everywhere(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = TORCHVISION[name]().eval()
    samples = [torch.randn(3, 64, 64) for _ in range(2)]

    proven = prove_graph(module, samples, export_config(batch_sizes=(2,)), tmp_path / "model.pt")

    assert "script" == proven.method
    assert {"exported", "frozen", "reloaded"} <= {row.stage for row in proven.rows}
    names = {"aux", "out"} if name == "deeplabv3" else {"output"}
    assert names == set(proven.signature["outputs"])


def test_a_detector_takes_images_of_any_size_and_names_the_library_of_its_operators(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None).eval()
    images = [torch.rand(3, 64, 96), torch.rand(3, 120, 80)]

    proven = prove_graph(adapted(detector, None), images, export_config(batch_sizes=(1, 2)), tmp_path / "model.pt", as_list)

    assert ("script", ["torchvision"]) == (proven.method, proven.signature["libraries"])
    assert ["C++: its graph needs operators of torchvision, which a C++ program must link"] == proven.skipped
    assert {"output[0].boxes", "output[0].labels", "output[0].scores"} <= {
        row.output for row in proven.rows if row.stage == "reloaded"
    }


@pytest.mark.parametrize(
    "words", [["export.dtype=bfloat16"], ["export.dtype=float16"], ["export.fold=true"], ["export.method=none"]]
)
def test_the_variants_of_an_image_classifier(words: list[str], tmp_path: Path) -> None:
    manifest = exported("vit_tiny", tmp_path, *words)

    kind = {"export.fold=true": "uint8", "export.dtype=bfloat16": "bfloat16", "export.dtype=float16": "float16"}.get(words[0])
    assert (kind is None) == (manifest.facts["method"] == "none") == ("model.pt" not in manifest.outputs)
    assert kind is None or manifest.facts["signature"]["inputs"][0]["dtype"] == kind
    assert 4 == manifest.facts["golden"]


@pytest.mark.parametrize(
    "word", ["export.fold=true", "export.dtype=bfloat16", "export.whole=models/silero_vad/whole.py:WholeSound"]
)
def test_what_only_a_graph_can_have_is_refused_where_none_is_made(word: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"{word.partition('=')[0]} has no effect with export\.method=none"):
        exported("vit_tiny", tmp_path, "export.method=none", word)


def test_folded_pixels_keep_control_flow_as_the_compiler_reads_comments_too(tmp_path: Path) -> None:
    module = Pixels(models.resnet18(weights=None).eval(), 1 / 255, [0.5] * 3, [0.5] * 3).eval()
    samples = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)]

    assert "script" == prove_graph(module, samples, export_config(batch_sizes=(2,)), tmp_path / "model.pt").method


def test_what_scripting_breaks_at_run_time_is_traced(tmp_path: Path) -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 2))

    proven = prove_graph(layer.eval(), [torch.randn(4) for _ in range(3)], export_config(), tmp_path / "model.pt")

    assert "trace" == proven.method


def test_an_output_of_which_nothing_is_compared_is_named(tmp_path: Path) -> None:
    samples = [torch.randn(4) for _ in range(3)]

    proven = prove_graph(Faint().eval(), samples, export_config(), tmp_path / "model.pt")

    assert any(told.startswith("output[0]: it was empty in every case") for told in proven.skipped)
    assert any(told.startswith("output[1]: it was never above 1e-06") for told in proven.skipped)


class Faint(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :0], x.sigmoid() * 0.0 + 1e-6
