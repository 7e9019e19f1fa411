"""The HTTP session of the portable client: it believes this installation's certificates only."""

import os
import socket
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

from distbuild.credentials import SCHEME, SERVER_NAMES, Credentials, Server, make_client_context

#: Seconds.
CONNECT_S = 3.0


def make_session(
    credentials: Credentials, expect: Server, *, pool_size: int = 16, token: str | None = None
) -> requests.Session:
    """A session that talks only to this installation's ``expect`` servers, whatever their address.

    ``token``: what is shown, "" for nothing; by default the role's. At most ``pool_size`` idle
    connections per server are kept. Redirects, plain HTTP, proxies and certificate settings of the
    environment are refused or ignored.
    """
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    shown = credentials.token if token is None else token
    if shown:
        session.headers["Authorization"] = SCHEME + shown
    session.adapters.clear()
    session.mount("https://", _RoleAdapter(credentials, expect, pool_size))
    return session


def use_socket(session: requests.Session, url: str, path: Path) -> None:
    """Have requests to ``url`` go over the Unix socket at ``path``, to which only its user gets."""
    session.mount(url, _SocketAdapter(path))


class _SocketConnection(HTTPConnection):
    def __init__(self, path: Path, timeout: Any) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path, self._patience = path, timeout

    def connect(self) -> None:
        """Instead of to the host's port."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(CONNECT_S)
        try:
            # By way of the directory's descriptor: an address has 108 bytes, a path may have more.
            directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{self._path.name}")
            finally:
                os.close(directory)
        except OSError as error:
            connection.close()
            raise NewConnectionError(self, f"{error.strerror}") from error
        connection.settimeout(self._patience)
        self.sock = connection


class _SocketPool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> _SocketConnection:
        return _SocketConnection(self._path, self.timeout.read_timeout)


class _SocketAdapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> _SocketPool:
        """The one pool that there is."""
        del args, kwargs
        return _SocketPool(self._path)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """There is no certificate: the kernel keeps others out."""


class _RoleAdapter(HTTPAdapter):
    """Verifies the server's role instead of its address, whatever a caller passes as ``verify``."""

    def __init__(self, credentials: Credentials, expect: Server, pool_size: int) -> None:
        self._context = make_client_context(credentials)
        self._name = SERVER_NAMES[expect]
        super().__init__(pool_connections=pool_size, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(
            ssl_context=self._context, assert_hostname=self._name, server_hostname=self._name
        )
        super().init_poolmanager(*args, **kwargs)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        del verify, cert
        return super().build_connection_pool_key_attributes(request, True)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """The inherited method would add the public CAs to our context."""
        del url, verify, cert
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = None
        conn.ca_cert_dir = None
