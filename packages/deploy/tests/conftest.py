"""A deploy section, and a server's answers without a server."""

import pytest

from marline.core import DeployConfig


@pytest.fixture
def config() -> DeployConfig:
    return DeployConfig(target="local", ready_s=5, java_home=None, max_request_mb=16, open_inference=False)
