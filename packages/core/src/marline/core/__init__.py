"""Configuration, manifests, run folders and the error tree. Imports neither torch nor anything else heavy."""

from marline.core._accelerator import Accelerator, accelerator_of
from marline.core._config import (
    STAGES,
    ArchiveConfig,
    Component,
    Config,
    DeployConfig,
    ExportConfig,
    LoadConfig,
    LoadtestConfig,
    ReportConfig,
    Section,
    Stage,
    TuneConfig,
    WrapConfig,
)
from marline.core._digest import code_sha256, file_sha256, folder_sha256, json_sha256, machine
from marline.core._errors import (
    ArchiveError,
    ExportError,
    LoadTestError,
    MarlineError,
    NotReady,
    ParityError,
    RequestError,
    ServerError,
    StageError,
    WorkerError,
)
from marline.core._import_file import import_file
from marline.core._layers import Loaded, flatten, known_models, project_root, read_config, service_curves
from marline.core._located import located
from marline.core._main import main
from marline.core._manifest import Manifest, Output, read_manifest, seal, verify, write_json
from marline.core._progress import listening, progress
from marline.core._run import adopt, complete, is_complete, new_run, newest, runs
from marline.core._state import read_state, state_file, write_state

__all__ = [
    "STAGES",
    "Accelerator",
    "ArchiveConfig",
    "ArchiveError",
    "Component",
    "Config",
    "DeployConfig",
    "ExportConfig",
    "ExportError",
    "LoadConfig",
    "LoadTestError",
    "Loaded",
    "LoadtestConfig",
    "Manifest",
    "MarlineError",
    "NotReady",
    "Output",
    "ParityError",
    "ReportConfig",
    "RequestError",
    "Section",
    "ServerError",
    "Stage",
    "StageError",
    "TuneConfig",
    "WorkerError",
    "WrapConfig",
    "accelerator_of",
    "adopt",
    "code_sha256",
    "complete",
    "file_sha256",
    "flatten",
    "folder_sha256",
    "import_file",
    "is_complete",
    "json_sha256",
    "known_models",
    "listening",
    "located",
    "machine",
    "main",
    "new_run",
    "newest",
    "progress",
    "project_root",
    "read_config",
    "read_manifest",
    "read_state",
    "runs",
    "seal",
    "service_curves",
    "state_file",
    "verify",
    "write_json",
    "write_state",
]
