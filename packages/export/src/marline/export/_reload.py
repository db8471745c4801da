"""Run as a script in a fresh process: load a TorchScript file with torch alone, answer batches, write the answers.

python -I _reload.py model.pt asked.pt answered.pt [LIBRARY ...]
"""

import gc
import importlib
import sys
import warnings
from typing import Any

gc.disable()  # a tenth of torch's import goes into looking for garbage, and we end before there is any

import torch  # noqa: E402 - as said


def main(file: str, asked: str, answered: str, *libraries: str) -> None:
    """Answer each (method, arguments, keywords) in the list `asked`; `libraries` bring operators that are not torch's."""
    warnings.simplefilter("ignore", FutureWarning)  # TorchScript's announced end
    for library in libraries:
        importlib.import_module(library)
    module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    answers = []
    with torch.inference_mode():
        for method, arguments, keywords in torch.load(asked, weights_only=True):
            torch.manual_seed(0)
            answers.append(plain(getattr(module, method)(*arguments, **keywords)))
    torch.save(answers, answered)


def plain(value: Any) -> Any:
    """Without named tuples, which a weights-only reader refuses."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
