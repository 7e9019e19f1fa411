"""Reads ``config.json`` into typed values, and names the files below a process's home directory.

One schema serves wrapper, syncer and worker: each reads the keys it needs. Knows no network and no
certificate. Every mistake of the user is a ConfigError of one line: file, key, expectation.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

import msgspec

from distbuild.protocol.errors import ConfigError
from distbuild.protocol.names import HOME_MARKER
from distbuild.system.paths import WINDOWS, from_system

Confinement = Literal["auto", "namespace", "bubblewrap", "plain"]

DEFAULT_SYNCER = "https://localhost:5000"
DEFAULT_SYNCER_PORT = 5000
MAX_PORT = 65535
_MOST = 2**63 - 1  # the largest integer that messages can carry

#: Enough for some generations of the headers of a few large projects.
DEFAULT_STORE_BYTES = 20 * 1024**3
DEFAULT_HISTORY_BYTES = 200 * 1000**2
#: Larger files are hardly headers; each is sent once a compile asks for it.
DEFAULT_MAX_FILE_BYTES = 16 * 1024**2

_CHOICES = {"sandbox": ", ".join(get_args(Confinement))}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_JSON_POSITION = re.compile(r"\(byte (\d+)\)")
_FIELD = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<key>[^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


class Home(msgspec.Struct, frozen=True):
    """The directory that holds all files that one installation owns."""

    path: Path

    @property
    def config_path(self) -> Path:
        """The configuration, JSON."""
        return self.path / "config.json"

    @property
    def certs(self) -> Path:
        """Certificates and tokens, a directory per role."""
        return self.path / "certs"

    @property
    def is_clone(self) -> bool:
        """Whether it is a clone of this repository, as ``git clone`` makes in the user's home."""
        return (self.path / "src" / "distbuild" / "config.py").exists()

    @property
    def notice(self) -> str:
        """A notice for the user about an unusual home; "" for an ordinary one."""
        if not self.is_clone:
            return ""
        return (
            f"{self.path} is a clone of dist_build and also the home: configuration, certificates"
            " and state stay in it, ignored by git (DIST_BUILD_HOME names another home)"
        )

    def prepare(self) -> None:
        """Make the home's directories, for their owner alone: they hold sources and headers.

        Marked directories are not mirrored: the whole home, but in a clone only the private
        directories, since the clone's sources may be compiled. Raises ConfigError.
        """
        private = (self.certs, self.logs, self.state, self.sandbox, self.store)
        try:
            for directory in (self.path, self.logs, self.state):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.is_clone:
                (self.path / HOME_MARKER).touch()
                return
            (self.path / HOME_MARKER).unlink(missing_ok=True)
            for directory in private:
                directory.mkdir(mode=0o700, exist_ok=True)
                (directory / HOME_MARKER).touch()
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be written: {error.strerror}") from error

    @property
    def logs(self) -> Path:
        """Log files, one per process name."""
        return self.path / "logs"

    @property
    def socket(self) -> Path:
        """The syncer's Unix socket for wrappers."""
        return self.path / "syncer.sock"

    @property
    def user_token(self) -> Path:
        """The file with the secret that proves to a syncer that a wrapper runs as its user."""
        return self.state / "user_token"

    @property
    def join_codes(self) -> Path:
        """The digests of the codes with which build machines join."""
        return self.certs / "join_codes.json"

    @property
    def joined_workers(self) -> Path:
        """The workers that have joined a syncer."""
        return self.certs / "joined_workers.json"

    @property
    def autostart(self) -> Path:
        """The command by which a wrapper starts the syncer, a JSON list; missing: it does not."""
        return self.path / "autostart.json"

    @property
    def sandbox(self) -> Path:
        """A worker's trees, one per client."""
        return self.path / "sandbox"

    @property
    def store(self) -> Path:
        """A worker's blobs: the contents of all trees."""
        return self.path / "store"

    @property
    def state(self) -> Path:
        """State that survives a restart: digest caches, identities."""
        return self.path / "state"

    @property
    def objects(self) -> Path:
        """The syncer's object cache."""
        return self.state / "objects.sqlite"

    @property
    def history(self) -> Path:
        """The history of builds."""
        return self.state / "history.sqlite"

    @property
    def silent(self) -> Path:
        """A wrapper's mark that the syncer does not respond; a live syncer removes it."""
        return self.state / "silent"


def find_home(option: str | None = None, environ: Mapping[str, str] | None = None) -> Home:
    """The absolute home, from ``--home``, else DIST_BUILD_HOME, else ``~/dist_build``."""
    environ = os.environ if environ is None else environ
    named = option or environ.get("DIST_BUILD_HOME") or "~/dist_build"
    return Home(Path(os.path.abspath(_expand_user(named, environ))))


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of ``config.json``; all are optional."""

    #: Syncer: the workers it pushes headers to, ``host:port``.
    hosts: list[str] = []
    #: The syncer's URL; a worker may serve several. The syncer listens on the port of the first.
    syncer: str | list[str] = DEFAULT_SYNCER
    #: Syncer: include directories mirrored from the start.
    dirs: list[str] = []
    #: Syncer: directories that the workers already have: watched, not copied at the start.
    copied_already: list[str] = []
    #: Worker: number of concurrent compiles; None: one per core.
    num_cores: int | None = None
    #: Syncer: number of concurrent links and fallbacks (None: one per core). If set, the dev box's
    #: own cores also compile queued jobs while the farm is full.
    local_slots: int | None = None
    #: Syncer: a worker's time limit for one job (seconds); then another worker tries it, then the
    #: dev box.
    job_timeout_s: int = 1200
    #: Worker: the port it listens on; 0: none, so that it fetches the headers with its jobs.
    port: int = 8443
    #: Worker, syncer: the address to listen on.
    bind: str = "0.0.0.0"  # noqa: S104 - a build machine serves its network; every request is authenticated
    #: Worker: how compilers are confined. ``auto``: namespaces where they work, else plain.
    sandbox: Confinement = "auto"
    #: Syncer: accept commands over TLS too, from clients with the token of its own user.
    remote_compiles: bool = False
    #: Worker: may run as root without namespaces.
    allow_root: bool = False
    #: Worker: may run compilers that can open every file that the worker's user can.
    allow_unconfined: bool = False
    #: Worker: reuse identical files of its own disk instead of requesting them.
    reuse_own_files: bool = True
    #: Worker: upper bound of its store of blobs.
    store_bytes: int = DEFAULT_STORE_BYTES
    #: Syncer: upper bound of the object cache; 0: none.
    cache_bytes: int = 0
    #: Syncer: of so many hits of the object cache one is compiled again and compared; 0: none.
    verify_hits: int = 0
    #: Syncer: upper bound of the history of builds; 0: none.
    history_bytes: int = DEFAULT_HISTORY_BYTES
    #: Syncer: the loopback port of the dashboard; 0: any free one, None: there is no dashboard.
    dashboard_port: int | None = 0
    #: Syncer: larger files are withheld until a compile asks for one.
    max_file_bytes: int = DEFAULT_MAX_FILE_BYTES


def load_config(home: Home, environ: Mapping[str, str] | None = None) -> Config:
    """Read and check ``config.json``; raises ConfigError with one line for the first mistake."""
    environ = os.environ if environ is None else environ
    path = home.config_path
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; see example_dev_config.json and example_daemon_config.json"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read it: {error.strerror}") from error
    config = _decode(path, data)
    _check(path, config)
    return msgspec.structs.replace(
        config,
        dirs=[_expand(path, "dirs", value, environ) for value in config.dirs],
        copied_already=[
            _expand(path, "copied_already", value, environ) for value in config.copied_already
        ],
    )


def syncer_urls(config: Config) -> tuple[str, ...]:
    """The syncers' base URLs, each once, with a port and without a trailing slash."""
    named = [config.syncer] if isinstance(config.syncer, str) else config.syncer
    return tuple(dict.fromkeys(_with_port(url.rstrip("/")) for url in named))


def syncer_port(config: Config) -> int:
    """The port that a syncer with this configuration listens on."""
    return urlsplit(syncer_urls(config)[0]).port or DEFAULT_SYNCER_PORT


def listening_url(config: Config, port: int) -> str:
    """The URL of a server on this machine, as shown to people."""
    address = f"[{config.bind}]" if ":" in config.bind else config.bind
    return f"https://{address}:{port}"


def parse_host(text: str) -> tuple[str, int]:
    """``build1:8443`` or ``[::1]:8443`` as (host, port); raises ValueError."""
    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not _is_name(host) or re.search(r"[/@\[\]]", host):
        raise ValueError(f"{text!r} is not host:port")
    if (":" in host) != bracketed:
        raise ValueError(f"{text!r} is not host:port")
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 1 <= int(port_text) <= MAX_PORT:
        raise ValueError(f"{text!r} has no port between 1 and {MAX_PORT}")
    return host, int(port_text)


def _is_name(host: str) -> bool:
    """Whether a host name can be resolved: for a name that Python cannot encode for the resolver,
    the resolver raises no OSError."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return bool(host) and not re.search(r"[\s\0]", host)


def _decode(path: Path, data: bytes) -> Config:
    try:
        return msgspec.json.decode(data, type=Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_name_key(str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {_name_position(str(error), data)}") from error


def _name_key(message: str) -> str:
    unknown = _UNKNOWN.match(message)
    if unknown:
        known = ", ".join(sorted(Config.__struct_fields__))
        return f"unknown key {_one_line(unknown[1])!r}; expected one of {known}"
    field = _FIELD.match(message)
    if field:
        key, what = field["key"], _one_line(field["what"])
        choices = _CHOICES.get(key)
        what = f"expected one of {choices}; {what[0].lower()}{what[1:]}" if choices else what
        return f'key "{key}": {what[0].lower()}{what[1:]}'
    return f"{_one_line(message)} (the whole file has to be one JSON object)"


def _name_position(message: str, data: bytes) -> str:
    position = _JSON_POSITION.search(message)
    if position:
        before = data[: int(position[1])]
    elif "truncated" in message:
        before = data.rstrip()
    else:
        return f"not valid JSON: {_one_line(message)}"
    line = before.count(b"\n") + 1
    column = len(before) - (before.rfind(b"\n") + 1) + 1
    reason = _one_line(_JSON_POSITION.sub("", message)).removeprefix("JSON is malformed: ")
    return f"not valid JSON at line {line}, column {column}: {reason}"


def _check(path: Path, config: Config) -> None:
    for key in ("num_cores", "local_slots", "job_timeout_s", "store_bytes", "max_file_bytes"):
        value = getattr(config, key)
        if value is not None and value < 1:
            raise ConfigError(f'{path}: key "{key}": expected a number of at least 1, got {value}')
        if value is not None and value > _MOST:
            raise ConfigError(f'{path}: key "{key}": expected a smaller number, got {value}')
    for key in ("cache_bytes", "history_bytes", "verify_hits"):
        value = getattr(config, key)
        if not 0 <= value <= _MOST:
            what = "hits" if key == "verify_hits" else "bytes"
            raise ConfigError(f'{path}: key "{key}": expected a number of {what}, got {value}')
    _check_ports(path, config)
    if not _is_name(config.bind):
        raise ConfigError(f'{path}: key "bind": expected an address, got {config.bind!r}')
    for index, host in enumerate(config.hosts):
        try:
            parse_host(host)
        except ValueError as error:
            expected = 'expected "host:port" like "build1:8443"'
            raise ConfigError(f'{path}: key "hosts[{index}]": {expected}; {error}') from None
    _check_syncers(path, config)


def _check_ports(path: Path, config: Config) -> None:
    for key in ("port", "dashboard_port"):
        value = getattr(config, key)
        if value is not None and not 0 <= value <= MAX_PORT:
            expected = f"expected a number between 0 and {MAX_PORT}"
            raise ConfigError(f'{path}: key "{key}": {expected}, got {value}')


def _check_syncers(path: Path, config: Config) -> None:
    urls = [config.syncer] if isinstance(config.syncer, str) else config.syncer
    if not urls:
        raise ConfigError(f'{path}: key "syncer": expected at least one URL, got an empty list')
    for index, url in enumerate(urls):
        key = "syncer" if isinstance(config.syncer, str) else f"syncer[{index}]"
        if not _is_base_url(url):
            raise ConfigError(
                f'{path}: key "{key}": expected a URL like "{DEFAULT_SYNCER}", got {url!r}'
            )


def _with_port(url: str) -> str:
    # HTTPS's default port, which clients would use, is wrong: no syncer listens on it.
    return url if urlsplit(url).port else f"{url.rstrip(':')}:{DEFAULT_SYNCER_PORT}"


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    clean = _is_name(parts.hostname or "") and not re.search(r"\s", url)
    return parts.scheme == "https" and port != 0 and bare and clean


def _expand(path: Path, key: str, value: str, environ: Mapping[str, str]) -> str:
    def of_variable(match: re.Match[str]) -> str:
        name = match[1] or match[2] or ""
        if name not in environ:
            raise ConfigError(
                f'{path}: key "{key}": {value!r} uses ${name}, which is not set in the environment'
            )
        return environ[name]

    expanded = _expand_user(_VARIABLE.sub(of_variable, value), environ)
    if not os.path.isabs(expanded) or "\0" in expanded:
        raise ConfigError(f'{path}: key "{key}": expected an absolute path, got {value!r}')
    return from_system(os.path.normpath(expanded))


def _expand_user(value: str, environ: Mapping[str, str]) -> str:
    # On Windows, HOME may be a path in the form of programs ported from other systems.
    if (value == "~" or value.startswith("~/")) and environ.get("HOME") and not WINDOWS:
        return environ["HOME"] + value[1:]
    return os.path.expanduser(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
