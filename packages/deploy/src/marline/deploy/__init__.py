"""Stage 5: TorchServe, started, filled, proven and stopped; the only package that knows its management API."""

from marline.deploy._canary import Canary
from marline.deploy._client import Client, Reply, Status, content_type_of
from marline.deploy._deploy import deploy, prove
from marline.deploy._drain import drain
from marline.deploy._server import Server, serving
from marline.deploy._swap import Release, Swapped, roll_back, swap
from marline.deploy._tokens import Tokens

__all__ = [
    "Canary",
    "Client",
    "Release",
    "Reply",
    "Server",
    "Status",
    "Swapped",
    "Tokens",
    "content_type_of",
    "deploy",
    "drain",
    "prove",
    "roll_back",
    "serving",
    "swap",
]
