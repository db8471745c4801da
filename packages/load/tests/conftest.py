"""Stage load in folders of its own, and one tiny model of each kind, built from its config."""

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from marline.core import LoadConfig, Manifest, MarlineError
from marline.load import load

DEFAULTS: dict[str, Any] = {
    "weights": "auto",
    "seed": 0,
    "task": "auto",
    "init_kwargs": {},
    "torch_dtype": "auto",
    "device_map": None,
    "offload_folder": None,
    "max_shard_size": "5GB",
    "trust_remote_code": False,
    "allow_pickle": False,
    "rename": {},
    "samples": None,
}
HF: Any = transformers  # its classes are not typed for tests
Run = Callable[..., Manifest]
Tiny = Callable[[str], Path]
BERT = {"vocab_size": 200, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}


@pytest.fixture(scope="session")
def config() -> Callable[..., LoadConfig]:
    """The settings of stage load, some of them changed."""
    return lambda **told: LoadConfig.model_validate({**DEFAULTS, **told})


@pytest.fixture
def run(tmp_path: Path, config: Callable[..., LoadConfig]) -> Run:
    """Run stage load with some settings changed, in a folder of its own; a refusal must leave that folder empty."""

    def make(**told: object) -> Manifest:
        out = tmp_path / f"run{len([*tmp_path.iterdir()])}" / "load"
        out.mkdir(parents=True)
        try:
            return load("tiny", config(**told), out)
        except MarlineError:
            assert [] == [*out.iterdir()]
            raise

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The folder of a tiny model, as `save_pretrained` writes it; made once, so tests change copies only."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            torch.manual_seed(7)
            BUILD[name](made[name])
        return made[name]

    return make


def _tokenizer(folder: Path) -> None:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    model = tokenizers.models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokens = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    HF.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)


def _bert(folder: Path) -> None:
    HF.BertForMaskedLM(HF.BertConfig(**BERT)).save_pretrained(folder)
    _tokenizer(folder)
    (folder / "LICENSE.txt").write_text("free\n")


def _gpt2(folder: Path) -> None:
    """Config and tokenizer alone: its weights are random."""
    config = HF.GPT2Config(vocab_size=200, n_embd=8, n_layer=2, n_head=2, n_positions=64)
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(folder)
    _tokenizer(folder)


def _vit(folder: Path) -> None:
    config = HF.ViTConfig(**VISION, patch_size=16, num_labels=3)
    HF.ViTForImageClassification(config).save_pretrained(folder)
    HF.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def _wav2vec2(folder: Path) -> None:
    config = HF.Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=12, conv_dim=(4, 4),
        conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_labels=2, classifier_proj_size=4,
    )  # fmt: skip
    HF.Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    HF.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)


def _videomae(folder: Path) -> None:
    config = HF.VideoMAEConfig(**VISION, patch_size=16, num_frames=4, num_labels=2)
    HF.VideoMAEForVideoClassification(config).save_pretrained(folder)
    HF.VideoMAEImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)


def _clip(folder: Path) -> None:
    """Two encoders, and one processor that has a tokenizer and an image processor inside."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**sizes, "vocab_size": 200, "bos_token_id": 2, "eos_token_id": 3}
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    HF.CLIPModel(HF.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    _tokenizer(folder)
    tokenizer = HF.AutoTokenizer.from_pretrained(folder)
    HF.CLIPProcessor(image_processor=HF.CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(folder)


def _custom(folder: Path) -> None:
    """A classifier whose code is its own, in two files."""
    (folder / "sizes.py").write_text("WIDTH = 6\n")
    (folder / "configuration_own.py").write_text(
        "from transformers import PretrainedConfig\n\n\nclass OwnConfig(PretrainedConfig):\n    model_type = 'own'\n"
    )
    (folder / "modeling_own.py").write_text(
        "from torch import nn\nfrom transformers import PreTrainedModel\n\nfrom .configuration_own import OwnConfig\n"
        "from .sizes import WIDTH\n\n\nclass OwnModel(PreTrainedModel):\n    config_class = OwnConfig\n\n"
        "    def __init__(self, config):\n        super().__init__(config)\n        self.layer = nn.Linear(WIDTH, 2)\n"
        "        self.post_init()\n\n    def forward(self, pixel_values):\n        return self.layer(pixel_values)\n"
    )
    auto_map = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForImageClassification": "modeling_own.OwnModel",
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "architectures": ["OwnModel"], "auto_map": auto_map}))
    HF.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


BUILD: dict[str, Callable[[Path], None]] = {
    "bert": _bert,
    "gpt2": _gpt2,
    "vit": _vit,
    "wav2vec2": _wav2vec2,
    "videomae": _videomae,
    "clip": _clip,
    "custom": _custom,
}
