from __future__ import annotations

from typing import Any

import pytest
from mcp.server import MCPServer

from compute_awareness.mcp_server.server import build_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["auto", "legacy"], ids=["2026-07-28", "2025-11-25"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both protocol eras: the client's newest, and the handshake one."""
    return request.param


@pytest.fixture(scope="session")
def server() -> MCPServer[Any]:
    return build_server()
