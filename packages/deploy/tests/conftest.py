"""A deploy section, and a server's answers without a server."""

import pytest

from marline.core import DeployConfig, read_config


@pytest.fixture
def config() -> DeployConfig:
    return read_config(["model=digits_cnn", "deploy.ready_s=5"]).config.deploy
