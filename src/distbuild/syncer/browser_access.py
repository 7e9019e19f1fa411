"""Who may read the dashboard: a link with a one-time token gives a browser a cookie.

Cookies do not depend on the port, so that a browser would send them to another user's server on
this machine: the path, to which the cookie is limited, has a random part.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from distbuild.syncer.routes import RequestRefused

#: A link is valid for this time (seconds), and once.
LINK_S = 120.0
#: Links and browsers that are known at the same time; the oldest are forgotten.
MAX_KNOWN = 20
COOKIE = "dist_build"
#: Of every response.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_COMMAND = "run: dist_build.exe dashboard"


class Access:
    """Who may read the dashboard on ``port``. Thread-safe. ``clock``: monotonic, in seconds."""

    def __init__(self, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._clock = clock
        self._lock = threading.Lock()
        self._links: dict[bytes, float] = {}
        self._browsers: dict[bytes, float] = {}
        self.path = f"/{secrets.token_hex(8)}/"
        self._url = f"http://127.0.0.1:{port}{self.path}"

    def link(self) -> str:
        """A new link, which opens the dashboard once, soon."""
        return f"{self._url}open?token={self._new(self._links)}"

    def exchange(self, token: str) -> str:
        """The cookie for a link's token. Raises RequestRefused."""
        with self._lock:
            ends = self._links.pop(_digest(token), 0.0)
        if ends <= self._clock():
            raise RequestRefused(403, f"this link has been used or is too old; {_COMMAND}")
        return self._new(self._browsers)

    def _new(self, known: dict[bytes, float]) -> str:
        secret = secrets.token_urlsafe(32)
        with self._lock:
            known[_digest(secret)] = self._clock() + LINK_S
            if len(known) > MAX_KNOWN:
                del known[next(iter(known))]
        return secret

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Raises RequestRefused for a name of this machine by which a site of another origin may
        have reached it (DNS rebinding)."""
        if headers.get("host") not in self._hosts:
            raise RequestRefused(403, f"the dashboard has another address; {_COMMAND}")

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises RequestRefused unless a request comes from a browser with the cookie."""
        self.check_host(headers)
        if not self.knows(headers):
            raise RequestRefused(403, f"this browser has not opened the dashboard; {_COMMAND}")

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has a known cookie."""
        pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        with self._lock:
            return any(n == COOKIE and _digest(value) in self._browsers for n, _, value in pairs)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
