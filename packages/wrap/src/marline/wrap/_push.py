"""Uploads a finished repository to the hub that the environment names (HF_ENDPOINT), with the token it holds (HF_TOKEN)."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils.tqdm import disable_progress_bars

from marline.core import RequestError, StageError, WrapConfig

OPERATION_S = 60.0  # one read or write of the connection; the hub's client has no limit of its own
WORDS = {
    401: "it does not accept the token; log in again with hf auth login, or set HF_TOKEN",
    403: "the token may not write there; use one with write access to {name}",
    404: "there is no such repository, or the token may not see it",
}


def check_push(config: WrapConfig) -> None:
    """RequestError where an upload is wished that cannot work; without one, nothing is looked at."""
    if not config.push:
        return
    if config.repository is None:
        raise RequestError("wrap.push=true needs wrap.repository=ORG/NAME")
    if get_token() is None:
        raise RequestError("wrap.push=true needs a token of the hub: hf auth login, or HF_TOKEN in the environment")


def push(repository: Path, config: WrapConfig) -> str:
    """Create `config.repository` where it is missing and upload the folder; the address of the commit.

    Raises StageError with the hub's reason, never with the token.
    """
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    name = str(config.repository)
    get_session().timeout = OPERATION_S
    disable_progress_bars()
    try:
        api.create_repo(name, private=config.private, exist_ok=True)
        commit: Any = api.upload_folder(repo_id=name, folder_path=repository, commit_message="Upload a tracked model")
    except OfflineModeIsEnabled:
        raise StageError(f"{name} was not uploaded: HF_HUB_OFFLINE is set; unset it, or write wrap.push=false") from None
    except Exception as error:  # the hub's client raises what its transport raises
        raise StageError(f"{name} was not uploaded to {api.endpoint}: {_why(error, name)}") from None
    return str(commit.commit_url)


def _why(error: Exception, name: str) -> str:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"HTTP {status}, {WORDS.get(status, error.server_message or 'without a reason').format(name=name)}"
    return f"it cannot be reached ({type(error).__name__}); is HF_ENDPOINT right?"
