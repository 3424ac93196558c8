"""`compute-awareness serve` and `token`: the MCP server, for one user on stdio or for a team over HTTP."""

from __future__ import annotations

import datetime
import gc
from typing import Any

import click


@click.command()
@click.option("--transport", type=click.Choice(["stdio", "http"]), default="stdio", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="HTTP: the address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8365, show_default=True, help="HTTP: the port.")
@click.option(
    "--allow-host", "allowed_hosts", multiple=True, metavar="NAME[:PORT]",
    help="HTTP: a name of this server in its clients' URLs; needed where it listens to other machines.",
)  # fmt: skip
@click.option(
    "--allow-origin", "allowed_origins", multiple=True, metavar="ORIGIN",
    help="HTTP: a web page's origin that may call (https://app.example.org); programs send none.",
)  # fmt: skip
@click.option("--tokens", metavar="FILE", help="HTTP: only with a token of this file (`compute-awareness token NAME`).")
@click.option("--issuer", metavar="URL", help="HTTP: only with a token of this OAuth issuer, made for --audience.")
@click.option("--audience", metavar="TEXT", help="HTTP: what the issuer's tokens name as their audience.")
@click.option("--public-url", metavar="URL", help="HTTP: this server's address, for OAuth metadata.")
@click.option("--open-to-all", is_flag=True, help="HTTP: listen to other machines without asking who calls.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="HTTP: processes.")
@click.option(
    "--state-keys", metavar="FILE", help="HTTP: keys that several servers behind a load balancer share, one a line."
)
@click.option(
    "--sessions", is_flag=True,
    help="HTTP: keep a session per client, so that clients before 2026 can be asked by form; one worker only.",
)  # fmt: skip
@click.option("--detect-here", is_flag=True, help="HTTP: experiments run on this very machine: let it be looked at.")
@click.option("--max-request-kib", type=click.IntRange(1, 65536), default=256, show_default=True, help="HTTP.")
@click.option("--max-concurrent", type=click.IntRange(1, 10000), default=64, show_default=True, help="HTTP.")
@click.option("--call-limit", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True, help="HTTP: seconds.")
def serve(
    transport: str = "stdio",
    host: str = "127.0.0.1",
    state_keys: str | None = None,
    max_request_kib: int = 256,
    call_limit: float = 30.0,
    **options: Any,
) -> int:
    """Serve MCP to an assistant. The same as `compute-awareness` without a command, on stdio.

    Over HTTP the address is http://HOST:PORT/mcp, with /healthz beside it. Such a server does not look at its own
    hardware, at files or over ssh: its callers name the GPU or pass a report of their machine.
    """
    gc.freeze()
    gc.enable()
    if transport == "stdio":
        from ..mcp_server.server import serve as serve_stdio

        serve_stdio()
        return 0
    from ..mcp_server.http.app import serve_http
    from ..mcp_server.http.options import HttpOptions, read_state_keys

    given = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    given |= {"host": host, "max_request_bytes": max_request_kib * 1024, "call_limit_s": call_limit}
    given["state_keys"] = read_state_keys(state_keys) if state_keys else []
    checked = HttpOptions.model_validate(given).check()
    click.echo(f"Serving MCP on http://{host}:{checked.port}/mcp", err=True)
    serve_http(checked)
    return 0


@click.command()
@click.argument("name")
@click.option("--expires", metavar="YYYY-MM-DD", help="The last day on which it holds.")
def token(name: str, expires: str | None) -> int:
    """Make a token for NAME: it is shown once, and the line for the file of `serve --tokens` holds only its hash."""
    from ..errors import InputError
    from ..mcp_server.http.tokens import new_token

    try:
        day = None if expires is None else datetime.date.fromisoformat(expires)
    except ValueError:
        raise InputError(f"--expires must be a day like 2027-01-31, not {expires!r}") from None
    secret, line = new_token(name, day)
    click.echo(f"For {name} (shown this once): {secret}", err=True)
    click.echo(line)
    return 0
