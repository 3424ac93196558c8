"""The ASGI application of a shared server, and the process or processes that serve it."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import tempfile
from importlib.metadata import version
from typing import Any

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from ...asking.profile_file import VARIABLE as PROFILE
from ..hosting import Hosting
from ..server import build_server
from .issuer import IssuerTokens
from .limits import Limits
from .options import LOCAL, HttpOptions
from .tokens import TokenFile

_OPTIONS = "COMPUTE_AWARENESS_HTTP_OPTIONS"
HEALTH = "/healthz"
_CYCLES = 10_000
"""New objects until the collector looks for cycles among them; Python's own is 700 to 2,000, which a few calls make."""


def build_app(options: HttpOptions) -> Any:
    """The application: `/mcp`, and `/healthz` for a load balancer, which needs no token.

    Raises:
        InputError: options that do not go together, a token file that cannot be read.
    """
    options.check()
    auth: dict[str, Any] = {}
    if options.issuer:
        assert options.audience and options.public_url
        settings = AuthSettings(
            issuer_url=AnyHttpUrl(options.issuer),
            resource_server_url=AnyHttpUrl(options.public_url),
            validate_token_resource=False,  # the verifier checks the audience itself
        )
        auth = {"auth": settings, "token_verifier": IssuerTokens(options.issuer, options.audience)}
    server = build_server(
        Hosting(detect_here=options.detect_here, call_limit_s=options.call_limit_s),
        state_keys=options.state_keys or None,
        **auth,
    )

    @server.custom_route(HEALTH, methods=["GET"])
    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True, "version": version("compute-awareness")})

    app: Any = server.streamable_http_app(
        stateless_http=not options.sessions,
        json_response=not options.sessions,
        max_request_body_size=options.max_request_bytes,
        transport_security=_security(options),
    )
    if options.tokens:
        app = _with_tokens(app, TokenFile(options.tokens))
    return Limits(app, options.max_concurrent)


def serve_http(options: HttpOptions) -> None:
    """Serve until it is told to stop (SIGTERM, Ctrl-C). Errors as `build_app`, before anything listens."""
    import uvicorn

    if options.workers > 1 and not options.state_keys:
        # Workers share one, so that a form that one of them sent can come back to another.
        options.state_keys = [secrets.token_hex(32)]
    build_app(options)
    os.environ[_OPTIONS] = options.model_dump_json()
    uvicorn.run(
        "compute_awareness.mcp_server.http.app:app_of_this_process",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_level="warning",
        timeout_graceful_shutdown=10,
        timeout_worker_healthcheck=60,
        server_header=False,
    )


def app_of_this_process() -> Any:
    """The application of a worker, by the options that its parent left in the environment."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = HttpOptions.model_validate_json(os.environ.pop(_OPTIONS))
    if options.workers > 1:
        os.environ[_OPTIONS] = options.model_dump_json()  # for the worker that replaces this one
    # The operator's profile is not the caller's, and no name of a model may mean a folder of this machine.
    os.environ[PROFILE] = ""
    tokens = options.tokens and os.path.abspath(options.tokens)
    os.chdir(tempfile.mkdtemp(prefix="compute-awareness-"))
    app = build_app(options.model_copy(update={"tokens": tokens}))
    _warm_up()
    return app


def _warm_up() -> None:
    """Loads what the first call would wait for, and spares the collector work: a sixth of the time of all calls.

    What is loaded lasts as long as the process, and would be looked through again every few hundred calls. What a
    call leaves behind goes with its last reference, but for a few cycles of the transport's: they can wait.
    """
    from ...preflight import preflight
    from ...workload import parse_workload

    preflight(parse_workload({"task": "inference", "model": "gpt2"}), gpu="unknown")
    gc.collect()
    gc.freeze()
    gc.set_threshold(_CYCLES)


def _with_tokens(app: Any, tokens: TokenFile) -> Any:
    """Only with a token of the file, but for the health check."""
    guarded = RequireAuthMiddleware(app, [])

    async def route(scope: Any, receive: Any, send: Any) -> None:
        is_open = scope["type"] != "http" or scope["path"] == HEALTH
        await (app if is_open else guarded)(scope, receive, send)

    return AuthenticationMiddleware(AuthContextMiddleware(route), backend=BearerAuthBackend(tokens))


def _security(options: HttpOptions) -> TransportSecuritySettings:
    """The Host and Origin headers that are let in; of a server for this machine its own names."""
    hosts = [name for host in options.allowed_hosts for name in ([host] if ":" in host else [host, f"{host}:*"])]
    origins = list(options.allowed_origins)
    if options.is_local:
        names = [f"[{name}]" if ":" in name else name for name in LOCAL]
        hosts += [f"{name}:*" for name in names]
        origins += [f"http://{name}:*" for name in names]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
