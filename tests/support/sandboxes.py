"""The ways in which a worker confines compilers, as tests ask for them."""

import functools
from pathlib import Path

import pytest

from distbuild.worker.sandbox import enter, landlock, prepared
from distbuild.worker.sandbox.base import Sandbox
from distbuild.worker.sandbox.namespace import NamespaceSandbox, find_bwrap, probe
from distbuild.worker.sandbox.plain import PlainSandbox
from tests.support.tools import absent, need
from tests.unit.worker.devbox import SEARCH_PATH

#: Values of the configuration's "sandbox"; "links" is "namespace" on a kernel without overlays.
SANDBOXES = (
    "namespace",
    pytest.param("links", marks=pytest.mark.exhaustive),
    pytest.param("bubblewrap", marks=pytest.mark.exhaustive),
    "plain",
)


def sandbox_of(kind: str, directory: Path) -> Sandbox:
    """A sandbox for jobs on the disk of ``directory``; skips the test where it does not work.

    Tests share it, as jobs do."""
    key = (kind, directory.stat().st_dev)
    if key not in _made:
        _made[key] = _sandbox(kind, directory)
    return _made[key]


_made: dict[tuple[str, int], Sandbox] = {}


def _sandbox(kind: str, directory: Path) -> Sandbox:
    if kind == "plain":
        if hindered := landlock.obstacle():
            absent(hindered)
        return PlainSandbox(SEARCH_PATH)
    bwrap = need("bwrap")
    if hindered := _obstacle():
        absent(hindered)
    if kind == "bubblewrap":
        return NamespaceSandbox(bwrap, SEARCH_PATH)
    program = entering()
    # As a worker does it: there are kernels and disks without overlays.
    layers = kind == "namespace" and prepared.has_layers(bwrap, program, str(directory))
    return NamespaceSandbox(bwrap, SEARCH_PATH, str(program), layers=layers)


@functools.cache
def entering() -> Path:
    """The program that enters namespaces; skips the test where it does not work."""
    program = enter.program([enter.SOURCE.parent], SEARCH_PATH)
    if hindered := prepared.obstacle(need("bwrap"), program):
        absent(f"{program}: {hindered}")
    assert program is not None
    return program


@functools.cache
def _obstacle() -> str:
    return probe(find_bwrap(SEARCH_PATH))
