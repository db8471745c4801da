"""TorchServe's gRPC messages. Its wheel has neither stubs nor .proto files for Python, but its jar has the .proto files.

They are compiled once per process from the jar of the TorchServe that is installed, so they are always its own.
"""

import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ts
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from marline.core import ServerError

OURS = ("inference.proto", "management.proto", "open_inference_grpc.proto")
THEIRS = ("google/rpc/status.proto", "google/protobuf/any.proto", "google/protobuf/empty.proto")
PACKAGE = "org.pytorch.serve.grpc"


def message(name: str) -> Any:
    """The class of a message, by its name below org.pytorch.serve.grpc or google.protobuf."""
    full = name if name.startswith("google.") else f"{PACKAGE}.{name}"
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full))


def call(channel: Any, service: str, method: str) -> Any:
    """A method of a service, as a function of a request message; both are looked up, so a wrong name is refused here."""
    told = _pool().FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(method)
    answer = message_factory.GetMessageClass(told.output_type)
    question = message_factory.GetMessageClass(told.input_type)
    return channel.unary_unary(
        f"/{PACKAGE}.{service}/{method}", request_serializer=question.SerializeToString, response_deserializer=answer.FromString
    )


def services() -> tuple[Any, ...]:
    """The descriptors of every service that TorchServe has, whether a server offers it or not."""
    return tuple(one for name in OURS for one in _pool().FindFileByName(name).services_by_name.values())


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    """A pool of its own: other libraries put messages of the same names into the common one."""
    jar = Path(ts.__file__).parent / "frontend" / "model-server.jar"
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(jar) as archive:
            for name in (*(f"proto/{own}" for own in OURS), *THEIRS):
                archive.extract(name, folder)
        found = Path(folder, "descriptors")
        told = [f"-I{folder}/proto", f"-I{folder}", "--include_imports", f"--descriptor_set_out={found}", *OURS]
        if protoc.main(["protoc", *told]) != 0:
            raise ServerError(f"the .proto files in {jar} cannot be compiled; protoc has said why")
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(found.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in descriptors.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
