import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from marline.core import LoadConfig, Manifest, RequestError, StageError, verify
from marline.load import load

hf: Any = transformers
ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "models" / "digits_cnn"
Run = Callable[..., Manifest]
SOURCE = f"python:{DIGITS / 'model.py'}:init_function"
TOLD = {"source": SOURCE, "task": "image-classification", "samples": str(DIGITS / "samples")}


@pytest.fixture
def digits(run: Run) -> Run:
    """Run stage load of digits_cnn, with some settings changed."""
    return lambda **changed: run(**{**TOLD, **changed})


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory, config: Callable[..., LoadConfig]) -> Manifest:
    """resnet18 with random weights and the samples we ship."""
    out = tmp_path_factory.mktemp("run") / "load"
    out.mkdir()
    return load("resnet18", config(source="torchvision:resnet18", weights="random"), out)


def weights_of(manifest: Manifest) -> dict[str, torch.Tensor]:
    return load_file(manifest.path("checkpoint/model.safetensors"))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_files_weights_arrive_bit_for_bit_with_everything_wrap_needs(digits: Run) -> None:
    manifest = digits(weights=str(DIGITS / "model.safetensors"))

    verify(manifest)
    assert same(load_file(DIGITS / "model.safetensors"), weights_of(manifest))
    assert {"model.safetensors", "config.json", "source.py"} == {path.name for path in manifest.path("checkpoint").iterdir()}
    assert (DIGITS / "model.py").read_bytes() == manifest.path("checkpoint/source.py").read_bytes()
    told = json.loads(manifest.path("checkpoint/config.json").read_text())
    assert ([str(digit) for digit in range(10)], {}) == (list(told["id2label"].values()), told["init_kwargs"])
    assert {
        "kind": "module",
        "source": SOURCE,
        "task": "image-classification",
        "init_kwargs": {},
        "weights": {"kind": "file", "detail": str(DIGITS / "model.safetensors")},
        "parameters": 10_026,  # as the docstring of models/digits_cnn/model.py says
        "input": "image",
    } == manifest.facts


def test_own_samples_arrive_byte_for_byte(digits: Run) -> None:
    sample = digits().path("sample")

    expected = {file.name: file.read_bytes() for file in (DIGITS / "samples").iterdir()}
    assert expected == {file.name: file.read_bytes() for file in sample.iterdir()}


def test_init_kwargs_reach_the_function(digits: Run) -> None:
    assert 2_686 == digits(init_kwargs={"channels": 6}, weights="random").facts["parameters"]


@pytest.mark.parametrize("source", [SOURCE, "torchvision:resnet18"])
def test_init_kwargs_that_do_not_fit_are_refused(digits: Run, source: str) -> None:
    with pytest.raises(RequestError, match=r"load\.init_kwargs=\{'chanels': 6\} does not fit: .*'chanels'"):
        digits(source=source, init_kwargs={"chanels": 6}, weights="random")


def test_a_seed_gives_the_same_weights_and_another_seed_others(digits: Run) -> None:
    one, again, other = (weights_of(digits(weights="random", seed=seed)) for seed in (3, 3, 4))

    assert same(one, again)
    assert not same(one, other)


def test_random_weights_say_so(digits: Run) -> None:
    for weights in ("random", "auto"):  # a function of one's own publishes none
        assert {"kind": "random", "detail": "seed 5: answers mean nothing, speed does"} == (
            digits(weights=weights, seed=5).facts["weights"]
        )


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("torchvision:resnet81", r"torchvision:resnet81 is not a model of torchvision .* did you mean torchvision:resnet"),
        ("torchvision:zzz", "known are alexnet"),
        ("torchvision:raft_small", "is not a model of torchvision that takes images or videos"),
        ("python:no/such.py:init_function", r"there is no file no/such\.py; the path is relative to the project's root"),
        (f"python:{DIGITS / 'model.py'}:nothing", r"model\.py has no function 'nothing'"),
        (f"python:{DIGITS / 'model.py'}:LABELS", r"model\.py has no function 'LABELS'"),
    ],
)
def test_a_source_that_is_not_there_is_refused(run: Run, source: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        run(source=source)


def test_a_task_that_torchvision_contradicts_is_refused(run: Run) -> None:
    with pytest.raises(RequestError, match=r"load\.task=fill-mask does not fit torchvision:resnet18, which answers image"):
        run(source="torchvision:resnet18", task="fill-mask")


def test_a_function_without_labels_does_not_say_its_task(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def init_function():\n    pass\n")

    assert "image-classification" == run(source=SOURCE, samples=TOLD["samples"]).facts["task"]
    with pytest.raises(RequestError, match=r"does not say what it answers; set load\.task=TASK, known are audio-class"):
        run(source=f"python:{tmp_path / 'model.py'}:init_function")


def test_a_file_may_say_how_its_images_are_prepared(run: Run, tmp_path: Path) -> None:
    lines = ["from torch import nn", "LABELS = {0: 'a', 1: 'b'}", "PROCESSOR = {'size': {'shortest_edge': 8}}"]
    (tmp_path / "model.py").write_text("\n".join([*lines, "def init_function():", "    return nn.Linear(2, 2)"]))

    manifest = run(source=f"python:{tmp_path / 'model.py'}:init_function")

    assert {"size": {"shortest_edge": 8}} == json.loads(manifest.path("checkpoint/preprocessor_config.json").read_text())
    assert {"0": "a", "1": "b"} == json.loads(manifest.path("checkpoint/config.json").read_text())["id2label"]


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("import no_such_library\n", StageError, r"model\.py cannot be imported: ModuleNotFoundError: .*no_such_library"),
        ("def init_function():\n    return 3\n", RequestError, r"function that returns a torch\.nn\.Module, not int"),
    ],
)
def test_own_code_that_fails_is_named(run: Run, tmp_path: Path, code: str, error: type[Exception], told: str) -> None:
    (tmp_path / "model.py").write_text(code)

    with pytest.raises(error, match=told):
        run(**{**TOLD, "source": f"python:{tmp_path / 'model.py'}:init_function"})


@pytest.mark.parametrize(
    "told", [{"device_map": "auto"}, {"offload_folder": "x"}, {"trust_remote_code": True}, {"torch_dtype": "float16"}]
)
def test_settings_without_effect_are_refused(digits: Run, told: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=rf"load\.{next(iter(told))} has an effect on Hugging Face models only"):
        digits(**told)


def test_renaming_published_weights_is_refused(digits: Run) -> None:
    with pytest.raises(RequestError, match=r"load\.rename has no effect on the weights of python:"):
        digits(rename={"a": "b"})


def test_foreign_names_are_mapped(digits: Run, tmp_path: Path) -> None:
    theirs = load_file(DIGITS / "model.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in theirs.items()}}, tmp_path / "own.pt")

    manifest = digits(weights=str(tmp_path / "own.pt"), allow_pickle=True, rename={r"^module\.": ""})

    assert same(theirs, weights_of(manifest))


def test_large_weights_are_split(digits: Run) -> None:
    checkpoint = digits(max_shard_size="10KB").path("checkpoint")

    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    assert {file.name for file in checkpoint.glob("*.safetensors")} == set(index["weight_map"].values())


@pytest.mark.parametrize(
    ("source", "task", "kind"),
    [
        ("ssdlite320_mobilenet_v3_large", "object-detection", "image"),
        ("s3d", "video-classification", "video"),
    ],
)
def test_torchvision_says_what_a_model_answers(run: Run, source: str, task: str, kind: str) -> None:
    manifest = run(source=f"torchvision:{source}", weights="random")

    assert (task, kind) == (manifest.facts["task"], manifest.facts["input"])
    assert not (manifest.folder / "checkpoint" / "preprocessor_config.json").exists()
    assert len(json.loads(manifest.path("checkpoint/config.json").read_text())["id2label"]) > 20
    module = torchvision.models.get_model(source, weights=None, **manifest.facts["init_kwargs"])
    module.load_state_dict(weights_of(manifest))


def test_images_for_a_segmenter_of_torchvision_become_squares_of_one_size(run: Run) -> None:
    photo = Image.linear_gradient("L").resize((640, 427)).convert("RGB")
    manifest = run(source="torchvision:lraspp_mobilenet_v3_large", weights="random")

    assert ("image-segmentation", "image") == (manifest.facts["task"], manifest.facts["input"])
    assert "boat" in json.loads(manifest.path("checkpoint/config.json").read_text())["id2label"].values()
    processor = hf.AutoImageProcessor.from_pretrained(manifest.folder / "checkpoint", local_files_only=True)
    pixels = processor(photo, return_tensors="pt")["pixel_values"][0]
    preset = torchvision.models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT.transforms()
    square = photo.resize((520, 520), Image.Resampling.BILINEAR)  # torchvision's own keeps the aspect
    expected = preset(square)
    assert expected.shape == pixels.shape
    assert (expected - pixels).abs().mean() <= 0.01 * expected.std()


def test_published_weights_of_own_code_are_refused(digits: Run) -> None:
    with pytest.raises(RequestError, match=r"publishes none; give load\.weights=FILE\.safetensors"):
        digits(weights="published")


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
def test_weights_that_do_not_fit_are_refused_and_named(digits: Run, tmp_path: Path, kind: str, told: str) -> None:
    save_file(changed(kind), tmp_path / "own.safetensors")

    with pytest.raises(StageError, match=told):
        digits(weights=str(tmp_path / "own.safetensors"))


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_safetensors_is_refused(digits: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.safetensors").write_bytes(content)

    with pytest.raises((RequestError, StageError), match=r"own\.safetensors (is not a safetensors file|does not fit)"):
        digits(weights=str(tmp_path / "own.safetensors"))


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


def test_a_function_that_fails_says_why(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def make(width):\n    raise ValueError('too wide')\n")

    with pytest.raises(StageError, match=r"fails with load\.init_kwargs=\{'width': 3\}: ValueError: too wide"):
        run(source=f"python:{tmp_path / 'model.py'}:make", task="text-classification", init_kwargs={"width": 3})


def test_labels_may_be_a_list(run: Run, tmp_path: Path) -> None:
    code = "from torch import nn\n\nLABELS = ['cat', 'dog']\n\n\ndef make():\n    return nn.Linear(3, 2)\n"
    (tmp_path / "model.py").write_text(code)

    manifest = run(source=f"python:{tmp_path / 'model.py'}:make")

    assert {"0": "cat", "1": "dog"} == json.loads(manifest.path("checkpoint/config.json").read_text())["id2label"]
