"""Describes the machine and the tools that a run was made with."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import psutil

_TOOLS = {
    "gcc": ["gcc", "--version"],
    "distcc": ["distcc", "--version"],
    "ccache": ["ccache", "--version"],
    "rsync": ["rsync", "--version"],
}


def describe() -> dict[str, str]:
    """What figures depend on, in words; a tool that is missing is said to be."""
    facts = {
        "processor": f"{len(os.sched_getaffinity(0))} x {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    return facts | {name: _version(words) for name, words in _TOOLS.items()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _version(words: list[str]) -> str:
    if shutil.which(words[0]) is None:
        return "not installed"
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return " ".join((done.stdout.splitlines() or ["?"])[0].split())
