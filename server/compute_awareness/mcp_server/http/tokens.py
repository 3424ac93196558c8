"""Bearer tokens from a file that holds only their hashes."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import secrets
from pathlib import Path

from mcp.server.auth.provider import AccessToken

from ...errors import InputError

_LINE = re.compile(r"([\w.@-]{1,64})\s+([0-9a-f]{64})(?:\s+(\d{4}-\d{2}-\d{2}))?")
_PREFIX = "ca_"


def new_token(name: str, expires: datetime.date | None = None) -> tuple[str, str]:
    """A token and the line for the file.

    The token has 256 bits of chance, so a plain SHA-256 of it tells nobody anything; no slow hash is needed.

    Raises:
        InputError: a name with blanks or signs that the file cannot hold.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} {_hash(token)}" + (f" {expires.isoformat()}" if expires else "")
    if not _LINE.fullmatch(line):
        raise InputError(f"{name!r}: a name of letters, digits and . _ @ -, at most 64")
    return token, line


class TokenFile:
    """Checks tokens against the file, which is read again when it changes; a token taken out is refused at once."""

    def __init__(self, path: str) -> None:
        """Raises InputError where the file cannot be read or a line is none."""
        self._path = Path(path)
        self._seen: tuple[int, int] | None = None
        self._rows: list[tuple[str, str, str | None]] = []
        self._read()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who holds it; None where nobody does or it has expired. A file that is broken now lets nobody in."""
        try:
            self._read()
        except InputError:
            return None
        given, holder = _hash(token), None
        for name, known, expires in self._rows:  # all of them, so that the time tells nothing
            if hmac.compare_digest(given, known):
                holder = (name, expires)
        if holder is None or (holder[1] and holder[1] < datetime.datetime.now(datetime.UTC).date().isoformat()):
            return None
        return AccessToken(token=token, client_id=holder[0], scopes=[], subject=holder[0])

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            now = (stat.st_mtime_ns, stat.st_size)
            if now == self._seen:
                return
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self._seen = None
            raise InputError(f"{self._path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        rows: list[tuple[str, str, str | None]] = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                self._seen = None
                raise InputError(
                    f"{self._path}, line {number}: expected a name, the SHA-256 of the token in hexadecimal, and "
                    "perhaps the last day (2027-01-31), as `compute-awareness token NAME` prints it"
                )
            rows.append((match[1], match[2], match[3]))
        self._rows, self._seen = rows, now


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
