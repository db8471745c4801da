from pathlib import Path

import pytest

from marline.core import DeployConfig
from marline.deploy._risks import parse_properties, risks
from marline.deploy._settings import Ports, properties

PORTS = Ports(1, 2, 3, 4, 5)
UPSTREAM = """# as TorchServe's own examples have it
inference_address=http://0.0.0.0:8080
management_address = http://0.0.0.0:8081
metrics_address:http://127.0.0.1:8082
model_store=/home/model-server/model-store
disable_token_authorization=true
enable_model_api=true
install_py_dep_per_model=true
models={\\
  "noop": {}\\
}
"""


def names(text: str) -> set[str]:
    return {risk.name for risk in risks(parse_properties(text)) if risk.name}


def test_a_java_properties_file_is_read() -> None:
    told = parse_properties(UPSTREAM)

    assert ("http://0.0.0.0:8081", "http://127.0.0.1:8082") == (told["management_address"], told["metrics_address"])
    assert '{"noop": {}}' == told["models"]


def test_ours_has_no_risk(config: DeployConfig) -> None:
    assert set() == names(properties(Path("/nowhere"), PORTS, config))


def test_the_usual_container_s_has_them(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()

    found = list(risks(parse_properties(UPSTREAM.replace("/home/model-server/model-store", str(store)))))

    assert {"no_tokens", "public_without_tokens", "open_urls", "writable_workflows"} == {one.name for one in found if one.name}
    assert 2 == sum(one.name == "public_without_tokens" for one in found)
    assert {"enable_model_api=true", "install_py_dep_per_model=true"} <= {one.setting for one in found if not one.name}
    assert "metrics_mode, which is not set" in {one.setting for one in found}
    assert all(one.why and one.remedy for one in found)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("file:///store/.*", set()),
        ("https://models[.]example[.]net/.*", set()),
        ("file:///store/.*,https?://.*", {"open_urls"}),
        (".*", {"open_urls"}),
        ("(", {"open_urls"}),
        ("", {"open_urls"}),
    ],
)
def test_addresses_are_open_where_anybody_s_is_admitted(pattern: str, expected: set[str]) -> None:
    assert expected == names(f"allowed_urls={pattern}\nworkflow_store=/nowhere\n")


def test_a_public_address_with_tokens_is_only_surprising() -> None:
    text = "inference_address=http://0.0.0.0:80\nallowed_urls=file:///store/.*\nworkflow_store=/nowhere\n"

    assert set() == names(text)
    assert "inference_address=http://0.0.0.0:80" in {risk.setting for risk in risks(parse_properties(text))}


def test_an_empty_workflow_store_that_nobody_may_write_is_safe(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    safe = names(f"allowed_urls=file:///store/.*\nworkflow_store={tmp_path}\n")
    tmp_path.chmod(0o700)

    assert set() == safe
    assert {"writable_workflows"} == names(f"allowed_urls=file:///store/.*\nworkflow_store={tmp_path}\n")
