"""Makes one batch of single samples, and single answers of one batch. Goes into every archive; needs torch alone.

A sample is a tensor, or a mapping of names to tensors in the order of the model's arguments. Samples of one shape are
stacked; sequences of different lengths are padded with zeros at the end, and the mask among them says what was padded: a
tensor whose name has `mask` in it. Samples without one are batched with those of their own shape alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

Sample = torch.Tensor | Mapping[str, torch.Tensor]
Collate = Callable[[Sequence[Sample]], tuple[Any, ...]]


def collate(samples: Sequence[Sample]) -> tuple[torch.Tensor, ...]:
    """The model's arguments for a batch: one tensor [B, ...] for each name, or a single one where samples are tensors."""
    columns = zip(*(tensors(sample) for sample in samples), strict=True)
    return tuple(_batch(column) for column in columns)


def as_list(samples: Sequence[Sample]) -> tuple[list[torch.Tensor]]:
    """One list with the samples in it, of any sizes: what detectors of torchvision take."""
    return ([tensor for sample in samples for tensor in tensors(sample)],)


def tensors(sample: Sample) -> tuple[torch.Tensor, ...]:
    """A sample's tensors in the order of the model's arguments."""
    return (sample,) if isinstance(sample, torch.Tensor) else tuple(sample.values())


def has_mask(sample: Sample) -> bool:
    """Whether one of a sample's tensors says what is padding."""
    return isinstance(sample, Mapping) and any("mask" in name for name in sample)


def row(output: Any, index: int) -> Any:
    """One sample's part of a batched output, on the CPU: tensors by row, dicts and tuples item by item, lists by place."""
    if isinstance(output, torch.Tensor):
        return output[index].cpu()
    if isinstance(output, Mapping):
        return {key: row(value, index) for key, value in output.items()}
    if isinstance(output, list):
        return _on_cpu(output[index])
    return tuple(row(value, index) for value in output)


def most_likely(output: Any, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Logits [classes] to at most five labels with their probabilities, each on its own where classes do not exclude others.

    `config` is a Hugging Face config.json, read as transformers' pipelines do; ValueError where it says regression.
    """
    if config.get("problem_type") == "regression":
        raise ValueError("config.json says that the model does regression, which has no labels; write a handler")
    logits = (output["logits"] if isinstance(output, Mapping) else output).float()
    independent = config.get("problem_type") == "multi_label_classification" or len(logits) == 1
    probabilities = logits.sigmoid() if independent else logits.softmax(0)
    best = logits.topk(min(5, len(logits))).indices  # by logit: probabilities may be equal where they underflow
    labels = config.get("id2label") or {}
    pairs = zip(best.tolist(), probabilities[best].tolist(), strict=True)
    return [{"label": labels.get(str(index), str(index)), "index": index, "probability": value} for index, value in pairs]


def plain(value: Any) -> Any:
    """Tensors and NumPy's arrays and numbers inside an answer become lists and numbers, so that JSON can express it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    return (
        {key: _on_cpu(item) for key, item in value.items()} if isinstance(value, Mapping) else [_on_cpu(one) for one in value]
    )


def _batch(column: Sequence[torch.Tensor]) -> torch.Tensor:
    same = all(one.shape == column[0].shape for one in column)
    return torch.stack(list(column)) if same else pad_sequence(list(column), batch_first=True)
