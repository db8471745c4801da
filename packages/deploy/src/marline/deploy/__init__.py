"""Stage 5: TorchServe, started, filled, proven and stopped; the only package that knows its management API."""

from marline.deploy._answers import Answer, Kind, Retry, classify
from marline.deploy._ask import Speaks, ask
from marline.deploy._client import Client, Reply, Status, Tokens, content_type_of
from marline.deploy._deploy import deploy, prove
from marline.deploy._gpu import Plan, assigned, plan
from marline.deploy._grpc import GrpcClient
from marline.deploy._oip import Inference, Tensor, infer, model_ready
from marline.deploy._server import Server, serving

__all__ = [
    "Answer",
    "Client",
    "GrpcClient",
    "Inference",
    "Kind",
    "Plan",
    "Reply",
    "Retry",
    "Server",
    "Speaks",
    "Status",
    "Tensor",
    "Tokens",
    "ask",
    "assigned",
    "classify",
    "content_type_of",
    "deploy",
    "infer",
    "model_ready",
    "plan",
    "prove",
    "serving",
]
