"""Tokens of an OAuth issuer: this server is the resource, and checks signature, issuer, audience and time."""

from __future__ import annotations

import logging
import time
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import httpx2
import jwt
from mcp.server.auth.provider import AccessToken

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures with a public key only: a shared secret would let every resource make tokens for the others."""
_KEYS_FOR_S = 600.0
_AGAIN_AFTER_S = 10.0
_TIMEOUT_S = 5.0
_LARGEST = 1 << 20
_log = logging.getLogger(__name__)


class IssuerTokens:
    """Verifies the JWTs that one issuer makes for one audience. Its keys are fetched when needed and kept."""

    def __init__(self, issuer: str, audience: str) -> None:
        self._issuer, self._audience = issuer, audience
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = -_KEYS_FOR_S
        self._lock = anyio.Lock()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who it was issued to; None for any token that does not hold, or while the issuer cannot be reached."""
        try:
            key = await self._key(jwt.get_unverified_header(token))
            if key is None:
                return None
            claims: dict[str, Any] = jwt.decode(
                token, key.key, algorithms=_ALGORITHMS, audience=self._audience, issuer=self._issuer, leeway=30,
                options={"require": ["exp", "iss", "aud"]},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            _log.warning("token refused: %s", type(error).__name__)
            return None
        scope = claims.get("scope", claims.get("scp", []))
        subject = claims.get("sub")
        return AccessToken(
            token=token,
            client_id=str(claims.get("client_id") or claims.get("azp") or subject or "unknown"),
            scopes=scope.split() if isinstance(scope, str) else [str(one) for one in cast(list[Any], scope)],
            expires_at=int(claims["exp"]),
            resource=self._audience,
            subject=None if subject is None else str(subject),
            claims={"iss": self._issuer},
        )

    async def _key(self, header: dict[str, Any]) -> jwt.PyJWK | None:
        """The issuer's key of that name. A name that is new is looked up, but not again and again."""
        name = str(header.get("kid", ""))
        async with self._lock:
            age = time.monotonic() - self._fetched
            if age > _KEYS_FOR_S or (name not in self._keys and age > _AGAIN_AFTER_S):
                self._fetched = time.monotonic()
                try:
                    self._keys = await self._fetch()
                except (httpx2.HTTPError, jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError) as error:
                    _log.warning("the keys of %s cannot be had: %s", self._issuer, type(error).__name__)
        if name in self._keys:
            return self._keys[name]
        return next(iter(self._keys.values())) if not name and len(self._keys) == 1 else None

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S) as client:
            found = await self._metadata(client)
            if found.get("issuer") != self._issuer:
                raise ValueError("the metadata is another issuer's")
            keys = await _json(client, str(found["jwks_uri"]))
        known: dict[str, jwt.PyJWK] = {}
        for key in keys["keys"]:
            if key.get("use", "sig") == "sig" and key.get("kty") != "oct":
                known[str(key.get("kid", ""))] = jwt.PyJWK(key)
        return known

    async def _metadata(self, client: httpx2.AsyncClient) -> dict[str, Any]:
        """RFC 8414 first, then OpenID's own address."""
        parts = urlsplit(self._issuer)
        path = parts.path.rstrip("/")
        root = f"{parts.scheme}://{parts.netloc}"
        try:
            return await _json(client, f"{root}/.well-known/oauth-authorization-server{path}")
        except httpx2.HTTPError:
            return await _json(client, f"{root}{path}/.well-known/openid-configuration")


async def _json(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    answer = await client.get(url)
    answer.raise_for_status()
    if len(answer.content) > _LARGEST:
        raise ValueError("the answer is too long")
    return answer.json()
