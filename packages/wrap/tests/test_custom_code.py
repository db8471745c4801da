"""Repositories with code of their own: what is not understood is refused, with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.core import Manifest, StageError, WrapConfig
from marline.wrap import wrap
from marline.wrap._custom_code import probed, run

Make = Callable[..., Manifest]
Configure = Callable[..., WrapConfig]
STRANGE = """
import sys

from torch import nn
from transformers import PreTrainedModel

from .configuration_own import OwnConfig
from .modeling_own import OwnModel

sys.stdout.write("noise")


class Plain(nn.Module):
    def forward(self, x):
        return x


class Silent(PreTrainedModel):
    config_class = OwnConfig


class Old(OwnModel):
    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}
"""


@pytest.mark.parametrize(
    ("auto_map", "reason"),
    [
        ({"AutoConfig": "configuration_own.OwnConfig"}, "its auto_map names no model"),
        ({"AutoModel": "someone/else--modeling_own.OwnModel"}, "someone/else--modeling_own.OwnModel', code of another repo"),
        ({"AutoModel": ["modeling_own.OwnModel"]}, "which is no MODULE.CLASS"),
        ({"AutoModel": "../modeling_own.OwnModel"}, "which is no MODULE.CLASS"),
        ({"AutoModel": "modeling_other.OwnModel"}, "there is no modeling_other.py"),
        ({"AutoModel": "modeling_own.NoModel"}, "modeling_own.py defines no class 'NoModel'"),
        ({"AutoModel": "broken.Model"}, "broken.py is no Python"),
        ({"AutoModel": "one.Model", "AutoModelForCausalLM": "two.Model"}, "one name in different files: one.Model, two.Model"),
    ],
)
def test_what_the_text_shows_is_refused_without_running_it(
    loaded_custom: Make, config: Configure, tmp_path: Path, auto_map: dict[str, Any], reason: str
) -> None:
    made = loaded_custom(tmp_path, auto_map, broken="class Model(:", one="class Model: 1 / 0", two="class Model: 1 / 0")

    with pytest.raises(StageError, match="cannot be tracked automatically") as refused:
        wrap("own", config(), made, tmp_path / "wrap")

    assert reason in str(refused.value)
    assert [] == list((tmp_path / "wrap").iterdir())


def test_classes_are_looked_at_in_a_process_of_their_own(loaded_custom: Make, tmp_path: Path) -> None:
    checkpoint = loaded_custom(tmp_path, strange=STRANGE, bad="raise ValueError('no luck')").path("checkpoint")

    found = probed(checkpoint, ["strange.Plain", "strange.Silent", "bad.Model", "strange.Old", "modeling_own.OwnModel"])

    problems = [found.pop(reference)["problem"] for reference in ("strange.Plain", "strange.Silent", "bad.Model")]
    assert ["is no subclass of PreTrainedModel", "has no forward", "cannot be imported: ValueError: no luck"] == problems
    assert [None, None] == [one["problem"] for one in found.values()]
    assert {"generates": False, "will_generate": True} == {
        key: found["strange.Old"][key] for key in ("generates", "will_generate")
    }
    assert "summary" in found["modeling_own.OwnModel"]["methods"]


def test_code_that_does_not_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"

    with pytest.raises(StageError, match=r"took more than 0.5 s"):
        run(["-c", code], str(tmp_path), 0.5)


def test_a_tracked_repository_is_not_wrapped_again(loaded_custom: Make, config: Configure, tmp_path: Path) -> None:
    made = loaded_custom(tmp_path, marline_tracker="")

    with pytest.raises(StageError, match=r"it has marline_tracker.py already; wrap what it was made from"):
        wrap("own", config(), made, tmp_path / "wrap")
