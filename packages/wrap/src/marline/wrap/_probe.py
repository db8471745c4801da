"""Run in a bare process: `_probe.py FOLDER RESULT MODULE.CLASS ...` writes down what the classes of a repository are.

Imports nothing of ours: whatever the repository's code does, it does to a process that has nothing and is ended soon.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module


def look(folder: str, reference: str) -> dict[str, Any]:
    """Whether the class can be tracked, and which methods it has."""
    try:
        found: Any = get_class_from_dynamic_module(reference, folder, local_files_only=True)
    except Exception as error:  # the repository's code
        return {"problem": f"cannot be imported: {type(error).__name__}: {error}"[:500]}
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        return {"problem": "is no subclass of PreTrainedModel"}
    if found.forward is nn.Module.forward:
        return {"problem": "has no forward"}
    return {
        "problem": None,
        "methods": [name for name in dir(found) if inspect.isfunction(inspect.getattr_static(found, name, None))],
        "generates": hasattr(found, "generate"),
        "will_generate": hasattr(found, "prepare_inputs_for_generation"),  # transformers adds `generate` to such remote code
    }


if __name__ == "__main__":
    folder, result, *references = sys.argv[1:]
    Path(result).write_text(json.dumps({reference: look(folder, reference) for reference in references}))
