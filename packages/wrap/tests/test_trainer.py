"""transformers' own Trainer on a wrapped repository."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from marline.core import Manifest, WrapConfig
from marline.wrap import wrap

hf: Any = transformers


def test_two_steps_of_the_trainer_pass(
    loaded_transformers: Callable[..., Manifest],
    tiny_models: dict[str, Any],
    config: Callable[..., WrapConfig],
    tmp_path: Path,
) -> None:
    pytest.importorskip("accelerate")
    made = loaded_transformers(tmp_path, tiny_models["bert"](), "AutoModelForSequenceClassification", "text-classification")
    repository = wrap("bert", config(), made, tmp_path / "wrap").path("repository")
    model = hf.AutoModelForSequenceClassification.from_pretrained(repository, trust_remote_code=True)
    rows = [{"input_ids": torch.tensor([2, 5, 7]), "labels": 1, "unused": "x"}] * 4
    settings = hf.TrainingArguments(
        output_dir=tmp_path / "out", max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True
    )

    trained = hf.Trainer(model=model, args=settings, train_dataset=rows).train()

    assert 2 == trained.global_step
