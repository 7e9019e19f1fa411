"""Windows' rules for finding a program, tried here with files of these names."""

from pathlib import Path

import pytest

from distbuild.compiler import find


@pytest.fixture(autouse=True)
def _windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "WINDOWS", True)


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", ["cl", "cl.exe", "CL.exe"])
def test_a_program_is_called_without_its_suffix(tmp_path: Path, name: str) -> None:
    first, second = (tmp_path / n for n in ("a", "b"))
    found = program(first / ("cl.exe" if name == "cl" else name))
    program(second / "cl.exe")
    assert find.find_driver(name, "/", f"{first}:{second}") == found


def test_the_order_of_suffixes_is_windows(tmp_path: Path) -> None:
    program(tmp_path / "tool.cmd")
    assert find.find_driver("tool", "/", str(tmp_path)) == str(tmp_path / "tool.cmd")
    program(tmp_path / "tool.exe")
    assert find.find_driver("tool", "/", str(tmp_path)) == str(tmp_path / "tool.exe")


def test_a_path_in_the_command_is_no_name_to_look_for(tmp_path: Path) -> None:
    found = program(tmp_path / "bin" / "cl.exe")
    program(tmp_path / "path" / "cl.exe")
    assert find.find_driver("bin/cl", str(tmp_path), str(tmp_path / "path")) == found
    assert find.find_driver(str(tmp_path / "bin" / "nothing"), "/", "") is None


@pytest.mark.parametrize("name", ["sccache.exe", "Dist_Build.exe", "ccache.exe"])
def test_a_link_to_a_wrapper_is_passed_over(tmp_path: Path, name: str) -> None:
    wrapper = program(tmp_path / "tools" / name)
    front = tmp_path / "front" / "cl.exe"
    front.parent.mkdir()
    front.symlink_to(wrapper)
    behind = program(tmp_path / "behind" / "cl.exe")
    path = f"{front.parent}:{tmp_path / 'behind'}"
    assert find.find_driver("cl", "/", path) == behind
