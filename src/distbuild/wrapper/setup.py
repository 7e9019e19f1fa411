"""The subcommands ``setup`` (makes a dev box's certificates, configuration and service, and invites
build machines) and ``workers`` (lists those that have joined, and removes one).

``setup`` records in the home what it has made, and ``setup --undo`` removes that and nothing else.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from distbuild.config import (
    DEFAULT_SYNCER_PORT,
    MAX_PORT,
    Home,
    find_home,
    load_config,
    syncer_port,
)
from distbuild.credentials import ROLE_NAMES, Role, load_credentials
from distbuild.joining import VALID_S, Codes
from distbuild.protocol.errors import ConfigError
from distbuild.protocol.names import HOME_MARKER
from distbuild.system.process import hold
from distbuild.system.state_file import replace_private
from distbuild.wrapper.describe import ago
from distbuild.wrapper.syncer_client import USAGE, connect, decoded

UNIT = "dist_build-syncer.service"
_SYSTEMCTL_S = 60.0
#: An address of the documentation (RFC 5737), to which nothing is sent: the kernel says by which
#: address of its own this machine would reach it.
_ELSEWHERE = ("192.0.2.1", 9)
_UNIT_TEXT = """[Unit]
Description=dist_build syncer

[Service]
ExecStart={command}
Restart=on-failure
# 2: the configuration or a certificate is wrong; a restart does not help
RestartPreventExitStatus=2

[Install]
WantedBy=default.target
"""


class _Made(msgspec.Struct):
    """The parts of the installation that ``setup`` has made, and that ``--undo`` removes."""

    home: bool = False
    certs: bool = False
    #: The configuration as it was written; one that the user has edited stays.
    config: str = ""
    unit: str = ""
    autostart: bool = False


def run(words: Sequence[str]) -> int:
    """``setup [--invite | --undo]``."""
    parser = argparse.ArgumentParser(prog="dist_build.exe setup", allow_abbrev=False)
    parser.add_argument("--invite", action="store_true", help="only print a line for a new worker")
    parser.add_argument("--home", help="default: $DIST_BUILD_HOME or ~/dist_build")
    parser.add_argument("--undo", action="store_true", help="remove everything that setup has made")
    parser.add_argument("--address", help="by which build machines reach this dev box")
    parser.add_argument("--port", type=int, default=DEFAULT_SYNCER_PORT, help="of the syncer")
    parser.add_argument(
        "--new-certificates", action="store_true", help="replace them; all workers join again"
    )
    parser.add_argument(
        "--autostart", action="store_true", help="have a compile start the syncer if none runs"
    )
    parser.add_argument("--no-service", action="store_true", help="make no service of the syncer")
    try:
        options = parser.parse_args(words)
        if not 0 < options.port <= MAX_PORT:
            parser.error(f"--port: expected a number between 1 and {MAX_PORT}")
    except SystemExit as end:
        return USAGE if end.code else 0
    home = find_home(options.home)
    if options.undo:
        return _undo(home)
    if not options.invite:
        _set_up(home, options)
    _invite(home, options.address)
    return 0


def _set_up(home: Home, options: argparse.Namespace) -> None:
    """Make what is missing; raises ConfigError."""
    made = _made(home)
    made.home |= not home.path.exists()
    try:
        home.prepare()
        _record(home, made)
        _make_certificates(home, made, is_renewal=options.new_certificates)
        _make_configuration(home, made, options.port)
        if options.autostart and not home.autostart.exists():
            made.autostart = True
            _record(home, made)
            replace_private(home.autostart, msgspec.json.encode(_syncer_command(home)))
        is_service = not options.no_service and _make_service(home, made)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    if made.autostart:
        print("a compile starts the syncer if none runs")
    elif not is_service:
        print(f"start the syncer, and leave it running:  {shlex.join(_syncer_command(home))}")
    directory = _own_directory()
    found = shutil.which("dist_build.exe")
    if found is None or Path(found).resolve().parent != directory:
        print(f'put dist_build.exe on PATH:  export PATH="{directory}:$PATH"')


def _make_certificates(home: Home, made: _Made, *, is_renewal: bool) -> None:
    if (home.certs / "dev").exists() and not is_renewal:
        print(f"kept: {home.certs / 'dev'}")
        load_credentials(home.certs, "dev")
        return
    from distbuild.certificates import make_installation

    names = set(os.listdir(home.certs)) if home.certs.exists() else set()
    if names - {HOME_MARKER} and not is_renewal:
        raise ConfigError(f"{home.certs} has other certificates; move them away, or copy certs/dev")
    # Workers get theirs when they join: a token that several share is only made in place of one.
    roles: list[Role] = ["dev", "worker"] if _is_shared(home.certs / "worker") else ["dev"]
    make_installation(home.certs, roles)
    made.certs |= not names - {HOME_MARKER}
    _record(home, made)
    home.prepare()  # marks the new directory
    print(f"made: {home.certs}")


def _is_shared(place: Path) -> bool:
    """Whether this is a worker's part for all workers, made by gen_self_signed_certs.sh."""
    from distbuild.certificates import names_in

    with contextlib.suppress(OSError, ValueError):
        return names_in((place / "cert.pem").read_bytes()) == [ROLE_NAMES["worker"]]
    return False


def _make_configuration(home: Home, made: _Made, port: int) -> None:
    path = home.config_path
    if path.exists():
        load_config(home)
        print(f"kept: {path}")
        return
    text = f'{{\n  "syncer": "https://localhost:{port}"\n}}\n'
    made.config = text
    _record(home, made)
    replace_private(path, text.encode())
    load_config(home)
    print(f"made: {path}")


def _make_service(home: Home, made: _Made) -> bool:
    """Whether the syncer runs as a service of this user now."""
    if not _systemctl("show-environment"):
        return False
    path = _unit_path()
    text = _UNIT_TEXT.format(command=shlex.join(_syncer_command(home)))
    if not path.exists():
        made.unit = str(path)
        _record(home, made)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not (_systemctl("daemon-reload") and _systemctl("enable", "--now", UNIT)):
        print(f"systemctl --user cannot start {UNIT}; see systemctl --user status {UNIT}")
        return False
    print(f"the syncer runs as a service of yours: systemctl --user status {UNIT}")
    return True


def _unit_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "systemd" / "user" / UNIT


def _systemctl(*words: str) -> bool:
    """Whether ``systemctl --user`` exists and does this."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["systemctl", "--user", *words]
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SYSTEMCTL_S)
        return done.returncode == 0
    return False


def _own_directory() -> Path:
    """Where ``dist_build.exe`` is."""
    if getattr(sys, "frozen", False):
        return Path(sys.executable).resolve().parent
    own = Path(sys.argv[0]).resolve().parent
    return own / "dist" if (own / "dist").exists() else own


def _programs() -> tuple[list[str], list[str]]:
    """The commands that start the syncer here, and the daemon on a machine set up like this one."""
    installed = Path(sys.executable).parent / "dist_build-syncer"
    if installed.exists():
        return [str(installed)], ["dist_build-daemon"]
    if getattr(sys, "frozen", False):  # src/dist/dist_build_client of a clone
        source = Path(sys.executable).resolve().parents[1]
    else:
        source = Path(__file__).resolve().parents[2]
    python = sys.executable
    if getattr(sys, "frozen", False):
        own = source.parent / ".venv"
        place = own if own.exists() else Path(os.environ.get("VIRTUAL_ENV") or own)
        python = str(place / "bin" / "python")
    return [python, str(source / "syncer.py")], [".venv/bin/python", "src/daemon.py"]


def _syncer_command(home: Home) -> list[str]:
    return [*_programs()[0], "--home", str(home.path)]


#: A syncer that was started is awaited for this time; none is started again before (seconds).
STARTING_S = 5.0
RETRY_S = 60.0


def start_syncer(home: Home) -> bool:
    """Start the syncer by the command in ``autostart.json``; whether one is being started, by this
    process or another. After a failure none is started for ``RETRY_S``."""
    mark = home.state / "autostart"
    try:
        age_s = time.time() - mark.stat().st_mtime if mark.exists() else RETRY_S
        if 0 <= age_s < RETRY_S:
            return age_s < STARTING_S
        command = msgspec.json.decode(home.autostart.read_bytes(), type=list[str])
        home.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The lock is inherited: it is held as long as that syncer runs.
        with hold(home.state / "autostart.lock") as lock, open(mark, "wb") as output:
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={n: v for n, v in os.environ.items() if not n.startswith("DIST_BUILD_")},
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
    except BlockingIOError:  # started before: just now, or it runs and does not serve
        return not mark.exists() or time.time() - mark.stat().st_mtime < STARTING_S
    except (OSError, ValueError, IndexError):
        return False
    return True


def _invite(home: Home, address: str | None) -> None:
    """Print the line by which a build machine joins. Raises ConfigError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    config = load_config(home)
    credentials = load_credentials(home.certs, "dev")
    if not (home.certs / "ca" / "ca.key").exists():
        raise ConfigError(
            f"{home.certs / 'ca' / 'ca.key'}: no such file: only the machine on which the"
            " certificates were made can invite workers"
        )
    certificate = x509.load_pem_x509_certificate(credentials.cert.read_bytes())
    code = Codes(home.join_codes).make(certificate.public_bytes(Encoding.DER))
    host = address or _reachable_name()
    url = f"https://{f'[{host}]' if ':' in host else host}:{syncer_port(config)}"
    print(f"on a build machine, within {VALID_S / 60:.0f} minutes, once:")
    print(f"    {shlex.join(_programs()[1])} join {url} {code.text}")


def _reachable_name() -> str:
    """This machine's name if it leads to an address that others may reach, else an address."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        if not socket.gethostbyname(name).startswith("127."):
            return name
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_ELSEWHERE)
        return str(probe.getsockname()[0])
    return name


def _record_path(home: Home) -> Path:
    return home.path / "setup.json"


def _made(home: Home) -> _Made:
    path = _record_path(home)
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Made)
    except FileNotFoundError:
        return _Made()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _record(home: Home, made: _Made) -> None:
    replace_private(_record_path(home), msgspec.json.encode(made))


def _undo(home: Home) -> int:
    """Remove what ``setup`` has made, and what the syncer has put in a home that it made."""
    if not _record_path(home).exists():
        print(f"{home.path}: setup has made nothing here", file=sys.stderr)
        return 1
    made = _made(home)
    if made.unit:
        _systemctl("disable", "--now", UNIT)
        Path(made.unit).unlink(missing_ok=True)
        _systemctl("daemon-reload")
        print(f"removed: {made.unit}")
    _refuse_if_running(home)
    doomed = []
    if made.config and home.config_path.exists():
        if home.config_path.read_text(errors="replace") == made.config:
            doomed.append(home.config_path)
        else:
            print(f"kept: {home.config_path}: it was edited since")
    if made.autostart:
        doomed.append(home.autostart)
    if made.certs:
        doomed.append(home.certs)
    if made.home:
        doomed += [home.state, home.logs, home.path / HOME_MARKER]
    _remove([*doomed, _record_path(home)])
    if made.home:
        with contextlib.suppress(OSError):
            home.path.rmdir()  # unless it has something else
    return 0


def _refuse_if_running(home: Home) -> None:
    try:
        hold(home.state / "syncer.lock").close()
    except FileNotFoundError:
        return
    except OSError:
        raise ConfigError(f"{home.path}: a syncer runs with this home; stop it first") from None


def _remove(paths: Sequence[Path]) -> None:
    try:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()
            else:
                continue
            print(f"removed: {path}")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def workers(words: Sequence[str]) -> int:
    """``workers [remove W]``: lists the workers that have joined, or removes one."""
    if len(words) == 2 and words[0] == "remove":
        connect().remove_worker(words[1])
        print(f"{words[1]} was removed: its certificate and token are refused from now on")
        return 0
    if words:
        print("usage: dist_build.exe workers [remove W]", file=sys.stderr)
        return USAGE
    found = decoded(connect().workers(), list)
    if not found:
        print("no worker has joined; dist_build.exe setup --invite prints how to add one")
    for worker in found:
        where = worker["address"] or "listens on no port"
        print(f"{worker['name']}  {where}  asked for work {ago(worker['asked_s'])}")
    return 0
