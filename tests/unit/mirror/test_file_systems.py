"""Mounts come and go without a file event."""

import os
import subprocess
from pathlib import Path

import pytest

from distbuild.mirror.file_systems import MountWatch, is_kernel_made, is_remote
from tests.support.tools import absent


def test_a_system_without_the_table_has_no_mounts(tmp_path: Path) -> None:
    watch = MountWatch(str(tmp_path / "none"))
    assert watch.changed() == []
    watch.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_mount_point_is_told_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    point = tmp_path / "a place"
    point.mkdir()
    watch = MountWatch()
    words = ["mount", "-t", "tmpfs", "none", str(point)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        watch.close()
        absent(f"mount: {done.stderr.strip()}")
    try:
        assert str(point) in watch.changed()
        assert watch.changed() == []
    finally:
        subprocess.run(["umount", str(point)], check=True)
    assert str(point) in watch.changed()
    watch.close()


def test_what_the_kernel_makes_up_is_told_from_files(tmp_path: Path) -> None:
    assert is_kernel_made("/proc")
    assert not is_kernel_made(str(tmp_path))
    assert not is_kernel_made(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("magic", "remote"), [(0xEF53, False), (0x6969, True), (0x786F4256, True), (0x0BD00BD0, True)]
)
def test_files_that_other_machines_change_are_on_remote_file_systems(
    monkeypatch: pytest.MonkeyPatch, magic: int, remote: bool
) -> None:
    """ext4, NFS, VirtualBox's shared folders, Lustre."""
    monkeypatch.setattr("distbuild.mirror.file_systems._magic", lambda _: magic)
    assert is_remote("/project") is remote
