"""Stage 5: TorchServe, started, filled, proven and stopped; the only package that knows its management API."""

from marline.deploy._answers import Answer, Kind, Retry, classify
from marline.deploy._ask import Speaks, ask
from marline.deploy._canary import Canary
from marline.deploy._client import Client, Reply, Status, content_type_of
from marline.deploy._deploy import deploy, prove
from marline.deploy._drain import drain
from marline.deploy._gpu import Plan, assigned, plan
from marline.deploy._grpc import GrpcClient
from marline.deploy._oip import Inference, Tensor, infer, model_ready
from marline.deploy._server import Server, serving
from marline.deploy._swap import Release, Swapped, roll_back, swap
from marline.deploy._targets import deliver, refuse_random
from marline.deploy._tokens import Tokens

__all__ = [
    "Answer",
    "Canary",
    "Client",
    "GrpcClient",
    "Inference",
    "Kind",
    "Plan",
    "Release",
    "Reply",
    "Retry",
    "Server",
    "Speaks",
    "Status",
    "Swapped",
    "Tensor",
    "Tokens",
    "ask",
    "assigned",
    "classify",
    "content_type_of",
    "deliver",
    "deploy",
    "drain",
    "infer",
    "model_ready",
    "plan",
    "prove",
    "refuse_random",
    "roll_back",
    "serving",
    "swap",
]
