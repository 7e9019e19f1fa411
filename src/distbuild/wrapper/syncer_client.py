"""The wrapper's HTTP client of the syncer: submits commands, and sends the subcommands' requests.

Every failure of a request is an InfrastructureError.
"""

import contextlib
import itertools
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

from distbuild.command.probe import is_odd_pwd, telling_environment
from distbuild.config import find_home, load_config, syncer_urls
from distbuild.credentials import (
    SCHEME,
    SERVER_NAMES,
    Credentials,
    Server,
    known_secret,
    load_credentials,
    make_client_context,
)
from distbuild.joining import RemoveWorkerRequest
from distbuild.protocol import messages
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Terminal, Window
from distbuild.system.paths import WINDOWS, from_system
from distbuild.system.process import views_of_files
from distbuild.wrapper.local import clean_environment

#: Exit code of a wrong command line or configuration.
USAGE = 2
_OURSELVES = ("dist_build.exe", "dist_build")

#: A syncer that sends nothing for longer than this (seconds) is stopped or stuck: until a command
#: is answered there is a heartbeat twice a second.
SILENCE_S = 10.0
#: The same for other requests: they have no heartbeat, and may wait for the scan of a large tree.
SLOW_S = 300.0
CONNECT_S = 3.0
#: The same for users' queries: a status is answered within a second, a check within a few.
ANSWER_S = 10.0
_FRAME = struct.Struct("!I")


def request_of(
    argv: Sequence[str], env: Mapping[str, str], terminal: messages.Terminal | None
) -> messages.SubmitRequest:
    """The message for a command run in the current directory."""
    return messages.SubmitRequest(
        argv=[os.fsencode(word) for word in argv],
        cwd=os.fsencode(working_directory(env)),
        # No compiler reads a variable whose name is not ASCII, and a message's names are UTF-8.
        env={
            name: os.fsencode(value)
            for name, value in telling_environment(clean_environment(env)).items()
            if name.isascii()
        },
        terminal=terminal,
        place=next(iter(views_of_files()), b""),
        timed=verbosity(env) > 1,
        session=0 if WINDOWS else os.getsid(0),
    )


def verbosity(env: Mapping[str, str]) -> int:
    """The level that DIST_BUILD_VERBOSE asks for: 0, 1 (one line a command) or 2 (its phases too);
    another value counts as 0, as in the launcher."""
    return {"1": 1, "2": 2}.get(env.get("DIST_BUILD_VERBOSE", ""), 0)


def working_directory(env: Mapping[str, str]) -> str:
    """PWD if it names the current directory, as compilers use it; else the real path.

    In the internal form; Windows' compilers know no PWD. A PWD below /proc would name another
    directory in the syncer, and is sent as a variable instead.
    """
    logical = "" if WINDOWS else env.get("PWD", "")
    with contextlib.suppress(OSError):
        named = logical.startswith("/") and not is_odd_pwd(logical)
        if named and os.path.samestat(os.stat(logical), os.stat(".")):
            return logical
    try:
        return from_system(os.getcwd())
    except OSError as error:
        raise InfrastructureError(f"no working directory: {error.strerror}") from error


class NoSyncer(InfrastructureError):
    """There is no process that serves the syncer's socket or port."""


class SyncerConnection:
    """The requests of a wrapper to one syncer."""

    def __init__(self, session: requests.Session, url: str, absent: Path | None = None) -> None:
        self._session = session
        self._url = url
        self._absent = absent

    def is_outdated(self) -> bool:
        """Whether the syncer's socket has appeared since this connection was chosen without it: a
        syncer that starts meanwhile refuses what comes over the network."""
        return self._absent is not None and self._absent.exists()

    def compile(self, request: messages.SubmitRequest) -> messages.SubmitReply:
        """Submit a command; blocks until it is answered."""
        response = self._post("/api/v1/jobs", request, stream=True, silence_s=SILENCE_S)
        with response:
            return messages.decode(_last_frame(self._url, response), messages.SubmitReply)

    def explain(self, request: messages.SubmitRequest) -> messages.ExplainReply:
        """Whether a command would be distributed."""
        response = self._post("/api/v1/explain", request, stream=False)
        return messages.decode(response.content, messages.ExplainReply)

    def status(self) -> bytes:
        """The JSON of /status."""
        return bytes(self._send("GET", "/status", None, silence_s=ANSWER_S).content)

    def check(self) -> bytes:
        """Test every worker; returns JSON."""
        return bytes(self._send("POST", "/api/v1/check", None, silence_s=ANSWER_S).content)

    def install(self) -> Iterator[bytes]:
        """Install the mirror; yields a line of JSON for each step."""
        with self._send("POST", "/api/v1/install", None, stream=True) as response:
            try:
                yield from response.iter_lines()
            except requests.RequestException as error:
                raise self._failed(error) from error

    def clean(self) -> bytes:
        """Remove the sandboxes; returns JSON, host to error."""
        return bytes(self._send("POST", "/api/v1/clean", None, stream=False).content)

    def clear_cache(self) -> None:
        """Empty the syncer's object cache."""
        self._send("POST", "/api/v1/cache/clear", None, stream=False)

    def workers(self) -> bytes:
        """The JSON of the workers that have joined."""
        return bytes(self._send("POST", "/api/v1/workers", None, stream=False).content)

    def remove_worker(self, name: str) -> None:
        """Have a worker that has joined refused from now on."""
        self._post("/api/v1/workers/remove", RemoveWorkerRequest(name), stream=False)

    def builds(self, number: int | None = None) -> bytes:
        """The JSON of the last builds, or of one with its jobs; 0: the latest."""
        path = "/api/v1/builds" if number is None else f"/api/v1/builds/{number}"
        return bytes(self._send("POST", path, None, stream=False).content)

    def dashboard(self) -> bytes:
        """JSON with a new link to the dashboard."""
        return bytes(self._send("POST", "/api/v1/dashboard", None, silence_s=ANSWER_S).content)

    def _post(
        self, path: str, message: messages.Message, *, stream: bool, silence_s: float = SLOW_S
    ) -> requests.Response:
        data = messages.encode(message)
        return self._send("POST", path, data, stream=stream, silence_s=silence_s)

    def _send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        *,
        stream: bool = False,
        silence_s: float = SLOW_S,
    ) -> requests.Response:
        try:
            response = self._session.request(
                method,
                self._url + path,
                data=data,
                headers={"Content-Type": messages.CONTENT_TYPE},
                stream=stream,
                timeout=(CONNECT_S, silence_s),
            )
        except requests.RequestException as error:
            raise self._failed(error) from error
        if response.ok:
            return response
        with response:
            lines = response.text.strip().splitlines()
        said = lines[0] if lines else "no explanation"
        raise InfrastructureError(f"syncer {self._url} answers {response.status_code}: {said}")

    def _failed(self, error: requests.RequestException) -> InfrastructureError:
        text = str(error)
        if "Connection refused" in text or "NewConnectionError" in text:
            return NoSyncer(f"no syncer at {self._url}; is syncer.py running?")
        if isinstance(error, requests.ReadTimeout):
            return InfrastructureError(f"syncer {self._url} says nothing: it is stopped, or stuck")
        if "certificate has expired" in text:
            return InfrastructureError(
                f"the certificate of syncer {self._url} has expired; run dist_build.exe setup"
                " --new-certificates, restart the syncer, and have all workers join again"
            )
        if "certificate verify failed" in text or "CERTIFICATE" in text:
            return InfrastructureError(
                f"syncer {self._url} has a certificate of another installation"
                " (does DIST_BUILD_HOME name the syncer's home?)"
            )
        return InfrastructureError(f"syncer {self._url}: {text.rpartition(': ')[2][:200]}")


def decoded(body: bytes, kind: type) -> Any:
    """The JSON of an answer, which has to be a ``kind``: dict or list. Raises
    InfrastructureError."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise InfrastructureError(f"the syncer's answer is no JSON: {error}") from error
    if not isinstance(value, kind):
        what = "object" if kind is dict else "list"
        raise InfrastructureError(f"the syncer's answer is no JSON {what}")
    return value


def _last_frame(url: str, response: requests.Response) -> bytes:
    """Skip heartbeats, which are empty frames, and return the one frame that has a body."""
    buffer = b""
    try:
        for chunk in response.iter_content(chunk_size=None):
            buffer += bytes(chunk)
            while len(buffer) >= _FRAME.size:
                (length,) = _FRAME.unpack_from(buffer)
                if length > messages.MAX_BODY_BYTES:
                    raise InfrastructureError(f"syncer {url}: an answer of {length} bytes")
                if length == 0:
                    buffer = buffer[_FRAME.size :]
                elif len(buffer) >= _FRAME.size + length:
                    return buffer[_FRAME.size : _FRAME.size + length]
                else:
                    break
    except requests.RequestException as error:
        if "timed out" in str(error):
            raise InfrastructureError(
                f"syncer {url} says nothing: it is stopped, or stuck"
            ) from error
        raise InfrastructureError(f"syncer {url}: connection lost: {error}") from error
    raise InfrastructureError(f"syncer {url}: connection closed before the answer")


def make_session(
    credentials: Credentials, expect: Server, *, pool_size: int = 16, token: str | None = None
) -> requests.Session:
    """A session that talks only to this installation's ``expect`` servers, whatever their address.

    ``token``: the one to send, "" for none; by default the role's. At most ``pool_size`` idle
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
    """Route requests to ``url`` over the Unix socket at ``path``, open to its owner only."""
    session.mount(url, _SocketAdapter(path))


class _SocketConnection(HTTPConnection):
    def __init__(self, path: Path, timeout: Any) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path, self._patience = path, timeout

    def connect(self) -> None:
        """Connect to the Unix socket instead of the host's port."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(CONNECT_S)
        try:
            # Through the directory's descriptor: an address has 108 bytes, a path may have more.
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
        """A pool of connections to the socket, for every URL."""
        del args, kwargs
        return _SocketPool(self._path)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """There is no certificate: the kernel admits only the socket's owner."""


class _RoleAdapter(HTTPAdapter):
    """Verifies the server's role instead of its address, whatever ``verify`` a caller passes."""

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
        """The inherited method would add the public CAs to this context."""
        del url, verify, cert
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = None
        conn.ca_cert_dir = None


_STDIN, _STDERR = 0, 2


def find_terminal() -> Terminal | None:
    """The terminal of standard error, with that of standard input; None if it is no terminal.

    A Windows console does not count: no worker there can give its compiler another.
    """
    stderr = None if WINDOWS else _window(_STDERR)
    return None if stderr is None else Terminal(stderr, _window(_STDIN))


def _window(descriptor: int) -> Window | None:
    if not os.isatty(descriptor):
        return None
    with contextlib.suppress(OSError):
        return Window(*os.get_terminal_size(descriptor))
    return Window()


def connect() -> SyncerConnection:
    """The connection to the configured syncer; raises ConfigError."""
    home = find_home()
    config = load_config(home)
    credentials = load_credentials(home.certs, "dev", check_certificate=False)
    url = syncer_urls(config)[0]
    is_local = not WINDOWS and home.socket.exists()
    # Over TLS any holder of a syncer's certificate of this installation could record the token: it
    # is sent there only where the syncer accepts it at all.
    shows = is_local or WINDOWS or config.remote_compiles
    token = known_secret(home.user_token) if shows else ""
    session = make_session(credentials, "syncer", pool_size=1, token=token)
    if is_local:
        use_socket(session, url, home.socket)
    absent = None if is_local or WINDOWS else home.socket
    return SyncerConnection(session, url, absent)


def without_ourselves(words: Sequence[str]) -> list[str]:
    """A command without this program's name in front.

    Where CC and CMake's launcher both name it, it stands there twice.
    """
    return list(itertools.dropwhile(lambda word: os.path.basename(word) in _OURSELVES, words))
