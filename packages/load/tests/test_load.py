import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

import marline.load
from marline.core import LoadConfig, Manifest, RequestError, StageError, verify
from marline.load import load

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "models" / "digits_cnn"
Run = Callable[..., Manifest]
DEFAULTS = {
    "source": f"python:{DIGITS / 'model.py'}:init_function",
    "weights": "auto",
    "seed": 0,
    "task": "image-classification",
    "init_kwargs": {},
    "samples": str(DIGITS / "samples"),
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run stage load of digits_cnn, with some settings changed, in a folder of its own."""

    def make(**changed: object) -> Manifest:
        out = tmp_path / f"run{len([*tmp_path.iterdir()])}" / "load"
        out.mkdir(parents=True)
        return load("tiny", LoadConfig.model_validate({**DEFAULTS, **changed}), out)

    return make


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """resnet18 with random weights and the samples we ship."""
    out = tmp_path_factory.mktemp("run") / "load"
    out.mkdir()
    words = {"source": "torchvision:resnet18", "weights": "random", "samples": None}
    return load("resnet18", LoadConfig.model_validate({**DEFAULTS, **words}), out)


def weights_of(manifest: Manifest) -> dict[str, torch.Tensor]:
    return load_file(manifest.path("checkpoint/model.safetensors"))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_files_weights_arrive_bit_for_bit_with_everything_wrap_needs(run: Run) -> None:
    manifest = run(weights=str(DIGITS / "model.safetensors"))

    verify(manifest)
    assert same(load_file(DIGITS / "model.safetensors"), weights_of(manifest))
    assert {"model.safetensors", "config.json", "source.py"} == {path.name for path in manifest.path("checkpoint").iterdir()}
    assert (DIGITS / "model.py").read_bytes() == manifest.path("checkpoint/source.py").read_bytes()
    told = json.loads(manifest.path("checkpoint/config.json").read_text())
    assert ([str(digit) for digit in range(10)], {}) == (list(told["id2label"].values()), told["init_kwargs"])
    assert {
        "source": DEFAULTS["source"],
        "task": "image-classification",
        "init_kwargs": {},
        "weights": {"kind": "file", "detail": str(DIGITS / "model.safetensors")},
        "parameters": 10_026,  # as the docstring of models/digits_cnn/model.py says
    } == manifest.facts


def test_own_samples_arrive_byte_for_byte(run: Run) -> None:
    sample = run().path("sample")

    expected = {file.name: file.read_bytes() for file in (DIGITS / "samples").iterdir()}
    assert expected == {file.name: file.read_bytes() for file in sample.iterdir()}


def test_a_folder_without_images_is_refused_with_the_endings_it_needs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")

    with pytest.raises(RequestError, match=r"holds no image; expected files ending in \.jpeg, \.jpg, \.png, \.webp"):
        run(samples=str(tmp_path / "texts"))


def test_init_kwargs_reach_the_function(run: Run) -> None:
    assert 2_686 == run(init_kwargs={"channels": 6}, weights="random").facts["parameters"]


@pytest.mark.parametrize("source", [DEFAULTS["source"], "torchvision:resnet18"])
def test_init_kwargs_that_do_not_fit_are_refused(run: Run, source: str) -> None:
    with pytest.raises(RequestError, match=r"load\.init_kwargs=\{'chanels': 6\} does not fit: .*'chanels'"):
        run(source=source, init_kwargs={"chanels": 6}, weights="random")


def test_a_seed_gives_the_same_weights_and_another_seed_others(run: Run) -> None:
    one, again, other = (weights_of(run(weights="random", seed=seed)) for seed in (3, 3, 4))

    assert same(one, again)
    assert not same(one, other)


def test_random_weights_say_so(run: Run) -> None:
    for weights in ("random", "auto"):  # a function of one's own publishes none
        assert {"kind": "random", "detail": "seed 5: answers mean nothing, speed does"} == (
            run(weights=weights, seed=5).facts["weights"]
        )


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("torchvision:resnet81", r"torchvision:resnet81 is not an image classifier .* did you mean torchvision:resnet"),
        ("torchvision:zzz", "known are alexnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", "is not an image classifier"),
        ("torchvision:deeplabv3_resnet50", "is not an image classifier"),
        ("python:no/such.py:init_function", r"there is no file no/such\.py; the path is relative to the project's root"),
        (f"python:{DIGITS / 'model.py'}:nothing", r"model\.py has no function 'nothing'"),
        (f"python:{DIGITS / 'model.py'}:LABELS", r"model\.py has no function 'LABELS'"),
    ],
)
def test_a_source_that_is_not_there_is_refused(run: Run, source: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        run(source=source)


def test_published_weights_of_own_code_are_refused(run: Run) -> None:
    with pytest.raises(RequestError, match=r"publishes none; give load\.weights=FILE\.safetensors"):
        run(weights="published")


def changed(kind: str) -> dict[str, torch.Tensor]:
    tensors = load_file(DIGITS / "model.safetensors")
    if kind in {"missing", "all"}:
        del tensors["classifier.bias"]
    if kind in {"extra", "all"}:
        tensors["head.bias"] = torch.zeros(10)
    if kind in {"shape", "all"}:
        tensors["classifier.weight"] = torch.zeros(10, 3)
    if kind == "nan":
        tensors["features.0.weight"][0, 0, 0, 0] = float("nan")
    if kind == "inf":
        tensors["features.1.running_var"][2] = float("inf")
    return tensors


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("missing", r"does not fit the model; missing: classifier\.bias$"),
        ("extra", r"does not fit the model; not in the model: head\.bias$"),
        ("shape", r"does not fit the model; of another shape: classifier\.weight$"),
        ("all", r"missing: classifier\.bias; not in the model: head\.bias; of another shape: classifier\.weight$"),
        ("nan", r"not finite in features\.0\.weight$"),
        ("inf", r"not finite in features\.1\.running_var$"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_named(run: Run, tmp_path: Path, kind: str, told: str) -> None:
    save_file(changed(kind), tmp_path / "own.safetensors")

    with pytest.raises(StageError, match=told):
        run(weights=str(tmp_path / "own.safetensors"))


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_safetensors_is_refused(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.safetensors").write_bytes(content)

    with pytest.raises((RequestError, StageError), match=r"own\.safetensors (is not a safetensors file|does not fit)"):
        run(weights=str(tmp_path / "own.safetensors"))


def test_shipped_samples_are_photographs_of_different_sizes(resnet: Manifest) -> None:
    sizes = []
    for file in sorted(resnet.path("sample").iterdir()):
        with Image.open(file) as image:
            assert ("JPEG", "RGB") == (image.format, image.mode)
            sizes.append(image.size)

    assert 4 == len(set(sizes))


def test_batch_norm_is_settled_on_real_images(resnet: Manifest) -> None:
    """Untrained, the variance of a ResNet's activations doubles with each block; settled, its logits stay near one."""
    module = torchvision.models.resnet18()
    module.load_state_dict(weights_of(resnet))
    module.eval()
    transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    images = []
    for file in sorted(resnet.path("sample").iterdir()):
        with Image.open(file) as image:
            images.append(transforms(image.convert("RGB")))

    with torch.inference_mode():
        logits = module(torch.stack(images))

    assert torch.isfinite(logits).all()
    assert 0.05 < logits.std() < 5
    assert (logits[0] - logits[1]).abs().max() > 0.05  # it sees its input
    assert not torch.equal(module.bn1.running_mean, torch.zeros(64))


def test_the_processor_says_what_torchvision_does(resnet: Manifest) -> None:
    told = json.loads(resnet.path("checkpoint/preprocessor_config.json").read_text())
    transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()

    assert {"shortest_edge": transforms.resize_size[0]} == told["size"]
    assert {"height": transforms.crop_size[0], "width": transforms.crop_size[0]} == told["crop_size"]
    assert (transforms.mean, transforms.std, Image.Resampling.BILINEAR) == (
        told["image_mean"],
        told["image_std"],
        told["resample"],
    )
    labels = json.loads(resnet.path("checkpoint/config.json").read_text())["id2label"]
    assert (1000, "tench") == (len(labels), labels["0"])


def test_public_names() -> None:
    exposed = {name for name in vars(marline.load) if not name.startswith("_")}

    assert set(marline.load.__all__) == exposed
