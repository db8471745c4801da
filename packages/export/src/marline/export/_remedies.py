"""What can be found in a model's source, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Remedy(StrEnum):
    """What was found, by what to do about it."""

    HINT = "TorchScript takes an argument without a hint for a Tensor; write its type"
    ARGUMENTS = "TorchScript needs every argument by name; write them out"
    NESTED = "no function can be defined inside another; make it a method, or a function of the file"
    LIBRARY = "only torch and math can be called in forward; do it in __init__ and keep the result in self, or use torch"
    STATEMENT = "the compiler does not know this statement; say it with if, for and while"
    UNTYPED = "an empty list or dict is taken for one of Tensors; write its type, as in out: list[int] = []"
    RETURN = "some paths end without a return, which means None; return a value of the same type on each"
    ATTRIBUTE = "self can hold tensors, numbers, strings, and lists, tuples and dicts of them; convert it in __init__"
    RANDOM = "pass training=self.training, or draw the numbers outside the model"
    TRAINING = "pass training=self.training"
    IN_PLACE = "work on a copy"
    STATE = "give what is kept as an argument, and return it"
    BRANCH = "script this part (export.method=script or hybrid), or say it with torch.where"
    DEVICE = "take it from an input: device=x.device"
    SIZE = "take it from the input: x.shape[0]"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place in a model's source."""

    file: str
    number: int
    line: str
    what: str
    remedy: Remedy

    @property
    def where(self) -> str:
        """The file, relative to the working folder where it is below that, and the line."""
        path = Path(self.file)
        return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}:{self.number}"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n      {self.line}\n    {self.remedy}"
