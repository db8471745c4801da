"""Why an output is what it is: attributions of the answer to /explanations. Goes into every archive; Captum is asked for late.

Integrated gradients (Sundararajan et al. 2017, through Captum): along the way from a baseline to the sample the output's
gradient is added up. Pixels and sounds start from zeros; tokens have no zero, so their embeddings do, which needs the eager
model: a frozen graph has no layers. An archive made with `archive.explain=true` carries it in the folder `eager`.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from collation import Sample
from eager_model import Positional, load_eager
from request_decoding import BadRequestError
from ts.utils.util import PredictionException

STEPS, AT_ONCE = 24, 8  # points on the way, and how many of them are one batch
NOT_HERE = 501


class Explainer:
    """Explains single samples; the eager model is loaded with the first."""

    def __init__(self, folder: Path, device: torch.device, own: Callable[..., Any] | None, graph: Any) -> None:
        self.folder, self.device, self.own, self.graph = folder, device, own, graph
        self.model: Any = None

    def insights(self, sample: Sample, target: int) -> Any:
        """The attributions to the output `target`; PredictionException 501 where there can be none.

        Of an image [height, width] in sum over its colours, of a sound [samples], of a text one for each token. A function
        of the model's own takes the place of all this.
        """
        try:
            if self.model is None:
                self.model = self._loaded()
            if self.own is not None:
                return self.own(self.model, sample, target)
            explain = _of_tokens if isinstance(sample, Mapping) and "input_ids" in sample else _of_numbers
            return explain(self.model, _as_eager(sample), target, self.device)
        except ImportError as error:  # Captum, or what the eager model is made with
            raise PredictionException(
                f"explanations need what is not installed where the server runs: {error}", NOT_HERE
            ) from error

    def _loaded(self) -> Any:
        if isinstance(self.graph, torch.nn.Module) and not isinstance(self.graph, torch.jit.ScriptModule):
            return self.graph
        eager = load_eager(self.folder / "eager")
        if eager is None:
            raise PredictionException(
                "this archive carries no model that can be explained: build it with archive.explain=true", NOT_HERE
            )
        return eager.to(self.device)


def _as_eager(sample: Sample) -> Sample:
    """What the eager model takes: raw pixels are for a graph that normalises them itself."""
    if not isinstance(sample, torch.Tensor) or sample.dtype != torch.uint8:
        return sample
    images = sys.modules.get("image_input")  # where the archive's handler imports it
    return images.normalised(sample) if images is not None and images.FOLDED else sample


def _of_numbers(model: Any, sample: Sample, target: int, device: torch.device) -> dict[str, Any]:
    from captum.attr import IntegratedGradients  # noqa: PLC0415 - brings matplotlib; only who asks for explanations has it

    if not isinstance(sample, torch.Tensor) or not sample.is_floating_point():
        raise PredictionException(
            "only images, sounds and texts can be explained; give the handler an explain_function", NOT_HERE
        )
    values = sample[None].to(device)
    _refuse_unknown(model(values), target)
    gradients = IntegratedGradients(lambda batch: _scores(model(batch)))
    found, delta = gradients.attribute(
        values, target=target, n_steps=STEPS, internal_batch_size=AT_ONCE, return_convergence_delta=True
    )
    return _told(found[0].sum(0) if found.ndim > 3 else found[0], delta, target)


def _of_tokens(model: Any, sample: Mapping[str, torch.Tensor], target: int, device: torch.device) -> dict[str, Any]:
    from captum.attr import LayerIntegratedGradients  # noqa: PLC0415 - as above

    inner = model.model if isinstance(model, Positional) else model
    ids, *others = (one[None].to(device) for one in sample.values())
    _refuse_unknown(model(ids, *others), target)
    gradients = LayerIntegratedGradients(lambda *batch: _scores(model(*batch)), _embeddings(inner))
    padding = getattr(getattr(inner, "config", None), "pad_token_id", None) or 0
    found, delta = gradients.attribute(
        ids,
        baselines=torch.full_like(ids, padding),
        additional_forward_args=tuple(others),
        target=target,
        n_steps=STEPS,
        internal_batch_size=AT_ONCE,
        return_convergence_delta=True,
    )
    return _told(found[0].sum(-1), delta, target) | {"token_ids": ids[0].tolist()}


def _embeddings(model: Any) -> torch.nn.Module:
    """The layer that makes vectors of token ids: the one a model of transformers names, else the first there is."""
    if hasattr(model, "get_input_embeddings"):
        found: torch.nn.Module = model.get_input_embeddings()
        return found
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Embedding | torch.nn.EmbeddingBag)]
    if not layers:
        raise PredictionException("the model embeds no tokens; give the handler an explain_function", NOT_HERE)
    return layers[0]


def _scores(output: Any) -> torch.Tensor:
    """One number per sample and class: the logits, or the first output of that shape."""
    values = (
        [output] if isinstance(output, torch.Tensor) else [output["logits"]] if "logits" in output else list(output.values())
    )
    found = next((value for value in values if value.ndim == 2), None)
    if found is None:
        raise PredictionException(
            "the model has no output [B, classes] to explain; give the handler an explain_function", NOT_HERE
        )
    return found


def _refuse_unknown(output: Any, target: int) -> None:
    count = _scores(output).shape[1]
    if not 0 <= target < count:
        raise BadRequestError(f"target={target}: the model has the outputs 0 to {count - 1}")


def _told(attributions: torch.Tensor, delta: torch.Tensor, target: int) -> dict[str, Any]:
    """`delta` is what the attributions miss of the change they explain: the method's own measure of its error."""
    values = attributions.detach().float().cpu()
    return {"target": target, "attributions": values, "sum": float(values.sum()), "delta": float(delta.abs().max())}
