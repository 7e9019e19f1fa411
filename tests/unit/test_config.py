"""The configuration file: what is read, and the one line for every mistake."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from distbuild.config import (
    Config,
    Home,
    find_home,
    load_config,
    parse_host,
    syncer_port,
    syncer_urls,
)
from distbuild.protocol.errors import ConfigError
from distbuild.protocol.names import HOME_MARKER

REPOSITORY = Path(__file__).parents[2]
ENVIRON = {"HOME": "/home/dev", "SRC": "/my space/src", "EMPTY": ""}


def write(tmp_path: Path, text: str | bytes) -> Home:
    home = Home(tmp_path)
    data = text.encode() if isinstance(text, str) else text
    home.config_path.write_bytes(data)
    return home


def load(tmp_path: Path, **keys: object) -> Config:
    return load_config(write(tmp_path, json.dumps(keys)), ENVIRON)


def error_of(home: Home) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(home, ENVIRON)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{home.config_path}: ")
    return message.removeprefix(f"{home.config_path}: ")


@pytest.mark.parametrize(
    ("option", "environ", "expected"),
    [
        ("/a/b", {"DIST_BUILD_HOME": "/c", "HOME": "/h"}, "/a/b"),
        (None, {"DIST_BUILD_HOME": "/c/", "HOME": "/h"}, "/c"),
        (None, {"DIST_BUILD_HOME": "~/c", "HOME": "/h"}, "/h/c"),
        (None, {"DIST_BUILD_HOME": "", "HOME": "/h"}, "/h/dist_build"),
        (None, {"HOME": "/h"}, "/h/dist_build"),
    ],
)
def test_home_is_the_option_else_the_variable_else_the_default(
    option: str | None, environ: dict[str, str], expected: str
) -> None:
    assert find_home(option, environ) == Home(Path(expected))


def test_relative_home_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_home("farm", {}) == Home(tmp_path / "farm")


def test_home_holds_everything() -> None:
    home = Home(Path("/h"))
    assert [home.config_path, home.certs, home.logs, home.socket, home.sandbox, home.state] == [
        Path("/h") / name
        for name in ("config.json", "certs", "logs", "syncer.sock", "sandbox", "state")
    ]


def test_empty_object_is_all_defaults(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config == Config()
    assert (config.port, config.num_cores, config.sandbox) == (8443, None, "auto")
    assert syncer_urls(config) == ("https://localhost:5000",)


def test_every_key_is_read(tmp_path: Path) -> None:
    keys = {
        "hosts": ["build1:8443", "[::1]:9000"],
        "syncer": ["https://dev1:5000", "https://dev2:5001"],
        "dirs": ["/usr/include"],
        "copied_already": ["/opt/sdk"],
        "local_slots": 3,
        "job_timeout_s": 600,
        "num_cores": 4,
        "port": 9443,
        "bind": "127.0.0.1",
        "sandbox": "plain",
        "remote_compiles": True,
        "allow_root": True,
        "allow_unconfined": True,
        "reuse_own_files": False,
        "store_bytes": 10**9,
        "cache_bytes": 0,
        "history_bytes": 0,
        "dashboard_port": None,
        "verify_hits": 100,
        "max_file_bytes": 10**6,
    }
    assert set(keys) == set(Config.__struct_fields__)
    assert load(tmp_path, **keys) == Config(**keys)  # type: ignore[arg-type]


def test_variables_and_home_are_expanded_in_directories(tmp_path: Path) -> None:
    config = load(tmp_path, dirs=["$SRC/include", "~/sdk/", "${SRC}/../x"], copied_already=["~"])
    assert config.dirs == ["/my space/src/include", "/home/dev/sdk", "/my space/x"]
    assert config.copied_already == ["/home/dev"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"prot": 1}',
            "unknown key 'prot'; expected one of allow_root, allow_unconfined, bind, ",
        ),
        ('{"num_cores": "four"}', 'key "num_cores": expected `int | null`, got `str`'),
        ('{"hosts": "build1:8443"}', 'key "hosts": expected `array`, got `str`'),
        ('{"dirs": ["/a", 3]}', 'key "dirs[1]": expected `str`, got `int`'),
        ('{"syncer": 5000}', 'key "syncer": expected `str | array`, got `int`'),
        (
            '{"sandbox": "docker"}',
            'key "sandbox": expected one of auto, namespace, bubblewrap, plain;',
        ),
        ('{"num_cores": 0}', 'key "num_cores": expected a number of at least 1, got 0'),
        ('{"port": -1}', 'key "port": expected a number between 0 and 65535, got -1'),
        (
            '{"dashboard_port": -1}',
            'key "dashboard_port": expected a number between 0 and 65535, got -1',
        ),
        ('{"port": 65536}', 'key "port": expected a number between 0 and 65535, got 65536'),
        ('{"bind": ""}', 'key "bind": expected an address'),
        ('{"hosts": ["a:1", "b"]}', 'key "hosts[1]": expected "host:port" like "build1:8443"'),
        ('{"syncer": "dev:5000"}', 'key "syncer": expected a URL like "https://localhost:5000"'),
        ('{"syncer": "http://dev:5000"}', 'key "syncer": expected a URL like'),
        ('{"syncer": "https://dev:99999"}', 'key "syncer": expected a URL like'),
        ('{"syncer": "https://"}', 'key "syncer": expected a URL like'),
        ('{"syncer": ["https://a:1", ""]}', 'key "syncer[1]": expected a URL like'),
        ('{"syncer": []}', 'key "syncer": expected at least one URL'),
        ('{"dirs": ["$NOPE/include"]}', "key \"dirs\": '$NOPE/include' uses $NOPE, which is not"),
        ('{"copied_already": ["${NO}"]}', "key \"copied_already\": '${NO}' uses $NO, which is"),
        ('{"dirs": ["include"]}', "key \"dirs\": expected an absolute path, got 'include'"),
        ('{"dirs": ["/a\\u0000"]}', "key \"dirs\": expected an absolute path, got '/a\\x00'"),
        ('{"num_cores": 10000000000000000000}', 'key "num_cores": expected a smaller number'),
        ('{"bind": ".."}', "key \"bind\": expected an address, got '..'"),
        ('{"syncer": "https://a..b:1"}', 'key "syncer": expected a URL like'),
        ("[]", "Expected `object`, got `array`"),
        ('{\n  "port": 1,\n  oops\n}', "not valid JSON at line 3, column 3: "),
        ('{\n  "port": 1,\n}', "not valid JSON at line 3, column 1: "),
        ('{"port": 1', "not valid JSON at line 1, column 11: "),
        ('{"port": 1} x', "not valid JSON at line 1, column 1"),
        ("", "not valid JSON at line 1, column 1: "),
        (b'{"bind": "\xff"}', "not valid JSON"),
    ],
)
def test_mistake_is_one_line_with_file_key_and_expectation(
    tmp_path: Path, text: str | bytes, expected: str
) -> None:
    assert error_of(write(tmp_path, text)).startswith(expected)


def test_missing_file_says_where_to_start_from(tmp_path: Path) -> None:
    assert error_of(Home(tmp_path / "no")).startswith("no such file; see example_dev_config")


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    assert error_of(Home(tmp_path)) == "cannot read it: Is a directory"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("build1:8443", ("build1", 8443)),
        ("10.0.0.7:1", ("10.0.0.7", 1)),
        ("[::1]:8443", ("::1", 8443)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
    ],
)
def test_host_and_port_are_parsed(text: str, expected: tuple[str, int]) -> None:
    assert parse_host(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "build1", ":8443", "build1:", "build1:0", "build1:65536", "build1:x", "build1:-1"),
        *("::1:8443", "[::1]", "[]:1", "[a:1", "a b:1", "https://a:1", "build1:1\n", "build1:¹"),
        *("a..lan:1", ".:1", f"{'a' * 64}.lan:1", "a\0:1"),
    ],
)
def test_bad_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not host:port|has no port between"):
        parse_host(text)


@pytest.mark.parametrize(
    ("syncer", "port"),
    [
        ("https://localhost:5000", 5000),
        ("https://dev", 5000),
        ("https://[::1]:7000/", 7000),
        (["https://dev1:6000", "https://dev2:6001"], 6000),
    ],
)
def test_syncer_listens_on_the_port_of_its_url(
    tmp_path: Path, syncer: str | list[str], port: int
) -> None:
    assert syncer_port(load(tmp_path, syncer=syncer)) == port


@pytest.mark.parametrize(
    ("syncer", "urls"),
    [
        ("https://dev", ("https://dev:5000",)),
        ("https://dev:", ("https://dev:5000",)),
        ("https://[::1]/", ("https://[::1]:5000",)),
        (["https://a:1", "https://a:1/", "https://b:2"], ("https://a:1", "https://b:2")),
    ],
)
def test_clients_take_the_port_that_the_syncer_listens_on(
    tmp_path: Path, syncer: str | list[str], urls: tuple[str, ...]
) -> None:
    assert syncer_urls(load(tmp_path, syncer=syncer)) == urls


@pytest.mark.parametrize("name", ["example_dev_config.json", "example_daemon_config.json"])
def test_example_is_valid(tmp_path: Path, name: str) -> None:
    load_config(write(tmp_path, (REPOSITORY / name).read_bytes()), ENVIRON)


def make_clone(path: Path) -> Home:
    (path / "src" / "distbuild").mkdir(parents=True)
    (path / "src" / "distbuild" / "config.py").touch()
    return Home(path)


def test_an_ordinary_home_is_marked_as_a_whole(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    assert not home.notice
    assert [str(p.relative_to(home.path)) for p in home.path.rglob(HOME_MARKER)] == [HOME_MARKER]


def test_in_a_clone_that_is_the_home_only_what_is_private_is_marked(tmp_path: Path) -> None:
    home = make_clone(tmp_path)
    (tmp_path / HOME_MARKER).touch()  # of a version that marked all
    home.prepare()
    assert {p.parent for p in home.path.rglob(HOME_MARKER)} == {
        home.certs,
        home.logs,
        home.state,
        home.sandbox,
        home.store,
    }
    assert str(tmp_path) in home.notice
    assert "\n" not in home.notice


def test_git_ignores_all_that_a_home_has(tmp_path: Path) -> None:
    ignored = Path(__file__).parents[2] / ".gitignore"
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ignored, tmp_path)
    home = make_clone(tmp_path)
    home.prepare()
    home.config_path.touch()
    home.socket.touch()
    listed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert sorted(listed.splitlines()) == ["?? .gitignore", "?? src/distbuild/config.py"]
