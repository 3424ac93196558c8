"""What an operator decides about a shared server."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from ...errors import InputError

LOCAL = ("127.0.0.1", "localhost", "::1")
PORT = 8365


class HttpOptions(BaseModel):
    """How to serve; see `compute-awareness serve --help`. Travels to worker processes as JSON."""

    model_config = ConfigDict(extra="forbid")
    host: str = "127.0.0.1"
    port: int = Field(default=PORT, ge=0, le=65535)
    allowed_hosts: list[str] = Field(default_factory=list)
    allowed_origins: list[str] = Field(default_factory=list)
    tokens: str | None = None
    issuer: str | None = None
    audience: str | None = None
    public_url: str | None = None
    open_to_all: bool = False
    workers: int = Field(default=1, ge=1, le=64)
    sessions: bool = False
    state_keys: list[str] = Field(default_factory=list, repr=False)
    detect_here: bool = False
    max_request_bytes: int = Field(default=256 * 1024, ge=1024, le=64 * 1024**2)
    max_concurrent: int = Field(default=64, ge=1, le=10_000)
    call_limit_s: float = Field(default=30.0, gt=0, le=3600)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can connect."""
        return self.host in LOCAL or (_is_address(self.host) and ipaddress.ip_address(self.host).is_loopback)

    def check(self) -> HttpOptions:
        """Itself.

        Raises:
            InputError: options that do not go together, or would leave the server open by an oversight.
        """
        if self.issuer and not (self.audience and self.public_url):
            raise InputError(
                "--issuer needs --audience, which its tokens name, and --public-url, the address of this server"
            )
        if self.audience and not self.issuer:
            raise InputError("--audience needs --issuer")
        for name, url in (("--issuer", self.issuer), ("--public-url", self.public_url)):
            if url is not None and not _is_url(url):
                raise InputError(f"{name} must be an https address (http only on this machine), not {url!r}")
        if not self.is_local and not (self.tokens or self.issuer or self.open_to_all):
            raise InputError(
                f"--host {self.host} lets other machines in: say who may call (--tokens FILE or --issuer URL), or "
                "--open-to-all where something before it decides that"
            )
        if not self.is_local and not self.allowed_hosts:
            raise InputError(
                f"--host {self.host}: name the address that clients use, as it stands in their URL "
                "(--allow-host mcp.example.org)"
            )
        if self.sessions and self.workers > 1:
            raise InputError("--sessions keeps state in one process: it needs --workers 1")
        return self


def read_state_keys(path: str) -> list[str]:
    """The keys of a file, one a line; the first seals, every one opens.

    Raises:
        InputError: it cannot be read, or a key is shorter than 32 characters.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys or any(len(key) < 32 for key in keys):
        raise InputError(f"{path}: each line a key of at least 32 characters, e.g. from `openssl rand -hex 32`")
    return keys


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_url(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL))
