"""Run as a script in a fresh process: load a TorchScript file with torch alone, answer batches, write the answers.

python -I _reload.py model.pt asked.safetensors answered.safetensors
"""

import sys
import warnings

import torch
from safetensors.torch import load_file, save_file


def main(file: str, asked: str, answered: str) -> None:
    """Write `<batch>/<output>` for every batch in `asked`, whose arguments are `<batch>/0`, `<batch>/1` and so on."""
    warnings.simplefilter("ignore", FutureWarning)  # TorchScript's announced end
    module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    answers: dict[str, torch.Tensor] = {}
    tensors = load_file(asked)
    with torch.inference_mode():
        for name in sorted({key.partition("/")[0] for key in tensors}):
            count = sum(key.startswith(f"{name}/") for key in tensors)
            output = module(*(tensors[f"{name}/{place}"] for place in range(count)))
            parts = {"output": output} if isinstance(output, torch.Tensor) else output
            parts = parts if isinstance(parts, dict) else {f"output[{index}]": part for index, part in enumerate(parts)}
            answers |= {f"{name}/{key}": value.contiguous().clone() for key, value in parts.items()}
    save_file(answers, answered)


if __name__ == "__main__":
    main(*sys.argv[1:])
