"""What a load needs at its peak, measured in a process of its own."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import BertConfig, BertModel

from marline.core import LoadConfig

Config = Callable[..., LoadConfig]
Tiny = Callable[[str], Path]
MEASURE = """
import json, sys
from pathlib import Path
import transformers.models.bert.modeling_bert
from marline.core import LoadConfig
from marline.load import load

def kib(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

out = Path(sys.argv[1])
config = LoadConfig.model_validate(json.loads(sys.argv[2]))
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = kib("VmRSS")
load("large", config, out)
print((kib("VmHWM") - before) * 1024)
"""


def test_a_load_of_four_shards_needs_little_more_than_the_model(config: Config, tiny: Tiny, tmp_path: Path) -> None:
    folder, out = tmp_path / "large", tmp_path / "run" / "load"
    shutil.copytree(tiny("bert"), folder, ignore=shutil.ignore_patterns("model*", "config.json"))
    told = BertConfig(vocab_size=30_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=18, num_attention_heads=16)
    told.architectures = ["BertModel"]
    told.save_pretrained(folder)
    with torch.device("meta"):
        state = {key: torch.zeros(value.shape, device="cpu") for key, value in BertModel(told).state_dict().items()}
    size = sum(value.nbytes for value in state.values())
    save_torch_state_dict(state, folder, max_shard_size=size // 4 + 20_000_000)
    out.mkdir(parents=True)
    command = [sys.executable, "-c", MEASURE, str(out), config(source=str(folder)).model_dump_json()]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert 0 == done.returncode, done.stderr
    assert 4 == len([*folder.glob("model-*.safetensors")])
    assert size >= 10**9
    assert int(done.stdout) <= 1.3 * size
    assert "published" == json.loads((out / "manifest.json").read_text())["facts"]["weights"]["kind"]
