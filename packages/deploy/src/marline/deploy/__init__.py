"""Stage 5: TorchServe, started, filled, proven and stopped; the only package that knows its management API."""

from marline.deploy._client import Client, Reply, Status, Tokens, content_type_of
from marline.deploy._deploy import deploy, prove
from marline.deploy._server import Server, serving
from marline.deploy._targets import deliver, refuse_random

__all__ = [
    "Client",
    "Reply",
    "Server",
    "Status",
    "Tokens",
    "content_type_of",
    "deliver",
    "deploy",
    "prove",
    "refuse_random",
    "serving",
]
