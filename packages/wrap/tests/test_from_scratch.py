"""A handler from scratch passes through, and says what nobody will report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from marline.core import Manifest, RequestError, WrapConfig, seal
from marline.wrap import wrap

Configure = Callable[..., WrapConfig]


@pytest.fixture
def loaded(config: Configure, tmp_path: Path) -> Manifest:
    """What stage load leaves of a handler: facts."""
    for folder in ("load", "wrap", "mine"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine" / "own.py").write_text("import json\n\nimport helper\nimport sklearn\nfrom PIL import Image\n")
    source = f"handler:{tmp_path / 'mine' / 'own.py'}"
    facts: dict[str, object] = {
        "kind": "handler",
        "source": source,
        "task": "other",
        "parameters": None,
        "init_kwargs": {},
        "input": "any",
    }
    facts["weights"] = {"kind": "file", "detail": f"brought by {source} itself, sha256 0123456789ab"}
    return seal(tmp_path / "load", model="own", config=config(), inputs=[], facts=facts, started=0.0)


def test_a_handler_passes_through_and_its_packages_are_named(loaded: Manifest, config: Configure, tmp_path: Path) -> None:
    address = "http://127.0.0.1:8000/reports/own"

    manifest = wrap("own", config(collector_url=address), loaded, tmp_path / "wrap")

    names = {"README.md", "config.json", "requirements.txt", "tracker.json"}
    assert {f"repository/{name}" for name in names} == set(manifest.outputs)
    assert ("handler", None) == (manifest.facts["kind"], manifest.facts["base_class"])
    assert ["pillow", "scikit-learn"] == [line.partition("==")[0] for line in manifest.facts["requirements"]]
    assert "there is no Python class to subclass" in manifest.facts["note"]
    card = manifest.path("repository/README.md").read_text()
    assert manifest.facts["note"] in card
    assert "| parameters | not counted |" in card
    assert f"A handler that uses the tracker beside it in an archive reports its requests to `{json.dumps(address)}`" in card
    assert [] == [word for word in ("torch.jit", "pytorch", str(tmp_path)) if word in card]


@pytest.mark.parametrize("told", [{"methods": ("speak",)}, {"push": True, "repository": "me/own"}])
def test_what_needs_a_model_is_refused(
    loaded: Manifest, config: Configure, tmp_path: Path, told: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_none")

    with pytest.raises(
        RequestError, match=r"wrap\.components, wrap\.methods and wrap\.push need a model; handler:.*own\.py is"
    ):
        wrap("own", config(**told), loaded, tmp_path / "wrap")
    assert [] == [*(tmp_path / "wrap").iterdir()]
