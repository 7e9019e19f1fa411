"""The HTTP session of the portable client: it believes this installation's certificates only."""

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from distbuild.tls import SCHEME, SERVER_NAMES, Credentials, Server, make_client_context


def make_session(
    credentials: Credentials, expect: Server, *, pool_size: int = 16
) -> requests.Session:
    """A session that talks only to this installation's ``expect`` servers, whatever their address.

    At most ``pool_size`` idle connections per server are kept. Redirects, plain HTTP, proxies and
    certificate settings of the environment are refused or ignored.
    """
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    session.headers["Authorization"] = SCHEME + credentials.token
    session.adapters.clear()
    session.mount("https://", _RoleAdapter(credentials, expect, pool_size))
    return session


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
