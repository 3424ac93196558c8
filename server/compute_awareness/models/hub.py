"""What a Hugging Face hub says of a repository: its config, and the headers of its weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import InputError
from . import catalogue
from .checkpoint import Checkpoint, from_folder, from_headers

# A preflight must not hang on a slow network: each answer within the first, everything within the others (seconds).
_ANSWER_TIMEOUT, _CONFIG_TIMEOUT, _HEADERS_TIMEOUT = 5.0, 12.0, 8.0
_Result = TypeVar("_Result")


def config_file(repo: str, where: str) -> Path:
    """The repository's config.json on this disk: from the Hugging Face cache, else downloaded into it.

    Raises:
        InputError: beginning with `where`, with the reason: gated, not there, offline, slow, no config.
    """
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    cached = try_to_load_from_cache(repo, "config.json")
    if isinstance(cached, str):
        return Path(cached)
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{where}: not in the catalogue or the local cache, and HF_HUB_OFFLINE is set{hint(repo)}")

    def download() -> str:
        # Asked once first: the download retries for a long time and then hides the reason.
        get_hf_file_metadata(hf_hub_url(repo, "config.json"), timeout=_ANSWER_TIMEOUT)
        return hf_hub_download(repo, "config.json", etag_timeout=_ANSWER_TIMEOUT)

    result = _within(_CONFIG_TIMEOUT, download)
    if result is None:
        raise InputError(f"{where}: {_host()} did not answer within {_CONFIG_TIMEOUT:.0f} s{hint(repo)}")
    if isinstance(result, BaseException):
        raise InputError(f"{where}: {_why_not(result)}{hint(repo)}") from None
    return Path(result)


def stored(repo: str) -> Checkpoint | None:
    """What the repository's safetensors files hold, by their headers alone (some hundred KiB per file): of the files
    in the Hugging Face cache, else of those on the hub.

    None where that cannot be read: offline, no safetensors files, a broken header, a slow answer. The size of the
    weights then follows from the config.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    for name in (constants.SAFETENSORS_SINGLE_FILE, constants.SAFETENSORS_INDEX_FILE):
        cached = try_to_load_from_cache(repo, name)
        if isinstance(cached, str):
            return from_folder(Path(cached).parent)
    if constants.HF_HUB_OFFLINE:
        return None

    def read() -> Checkpoint:
        from huggingface_hub import get_safetensors_metadata
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        metadata = get_safetensors_metadata(repo)
        return from_headers(
            (name, info.dtype, list(info.shape))
            for file in metadata.files_metadata.values()
            for name, info in file.tensors.items()
        )

    result = _within(_HEADERS_TIMEOUT, read)
    return result if isinstance(result, Checkpoint) else None


def _within(seconds: float, call: Callable[[], _Result]) -> _Result | BaseException | None:
    """What `call` returns or raises; None where it takes longer. huggingface_hub bounds each read, not the whole, so
    only a thread does."""
    outcome: list[_Result | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    worker = threading.Thread(target=run, name="hub", daemon=True)
    worker.start()
    worker.join(seconds)
    return outcome[0] if outcome else None


def hint(name: str) -> str:
    """`; nearest: ...` from the catalogue, or nothing."""
    close = catalogue.near(name[:200])
    return f"; nearest: {', '.join(close)}" if close else ""


def _host() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.split("//")[-1].rstrip("/")


def _why_not(error: BaseException) -> str:
    """The reason a download failed, for a person."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "a gated repository: accept its licence on its page and log in (hf auth login or HF_TOKEN)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository on {_host()}, or it is private and HF_TOKEN does not open it"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"not in the catalogue or the local cache, and {_host()} cannot be reached"
    if isinstance(error, errors.EntryNotFoundError):
        return "the repository has no config.json, so it is not a transformers model"
    response = error.response if isinstance(error, errors.HfHubHTTPError) else None
    if response is not None:
        return f"{_host()} answered {response.status_code}"
    return f"{_host()} cannot be reached ({type(error).__name__})"
