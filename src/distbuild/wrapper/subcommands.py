"""The subcommands status, install (fill the workers), clean (empty them), cache, explain and
dashboard, and which function has each of the others."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distbuild.wrapper import builds, commands, describe, doctor, setup
from distbuild.wrapper.local import clean_environment
from distbuild.wrapper.syncer_client import (
    USAGE,
    connect,
    decoded,
    find_terminal,
    request_of,
    without_ourselves,
)

#: explain's exit code for a command that would be compiled locally.
LOCAL = 1
_BAR = 30


def by_name(word: str) -> Callable[[Sequence[str]], int]:
    """A subcommand's function, which takes the arguments after it and returns the exit code."""
    return {
        "setup": setup.run,
        "workers": setup.workers,
        "status": status,
        "install": install,
        "clean": clean,
        "doctor": doctor.run,
        "explain": explain,
        "cache": cache,
        "builds": builds.run,
        "trace": builds.trace,
        "top": builds.top,
        "dashboard": dashboard,
        "completion": completion,
    }[word]


def status(words: Sequence[str]) -> int:
    """``status [--json]``: prints the syncer's status."""
    if list(words) not in ([], ["--json"]):
        return _usage("status [--json]")
    body = connect().status()
    if words:
        sys.stdout.write(body.decode("utf-8").rstrip("\n") + "\n")
        return 0
    print("\n".join(describe.status_lines(_object(body))))
    return 0


def install(words: Sequence[str]) -> int:
    """``install``: returns when every reachable worker has the mirror's present state."""
    if words:
        return _usage("install")
    last: Mapping[str, Any] = {}
    for line in connect().install():
        last = _object(line)
        if sys.stderr.isatty():
            sys.stderr.write("\r" + _progress(last))
            sys.stderr.flush()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    workers = last.get("workers", [])
    print(f"{last.get('files', 0)} files, {describe.size(last.get('bytes', 0))}")
    for worker in workers:
        state = "up to date" if worker["done"] else f"not reached: {worker['error']}"
        sent = f"{worker['sent_files']} files, {describe.size(worker['sent_bytes'])} sent now"
        print(f"  {worker['worker']}: {state} ({sent})")
    if not workers:
        print("no workers: dist_build.exe setup --invite prints how to add one", file=sys.stderr)
    return 0 if workers and all(worker["done"] for worker in workers) else 1


def _progress(step: Mapping[str, Any]) -> str:
    workers = step["workers"]
    total = max(1, step["files"]) * max(1, len(workers))
    done = sum(step["files"] if w["done"] else min(w["sent_files"], step["files"]) for w in workers)
    filled = _BAR * done // total
    bar = "#" * filled + "." * (_BAR - filled)
    return f"[{bar}] {sum(w['done'] for w in workers)}/{len(workers)} workers"


def clean(words: Sequence[str]) -> int:
    """``clean``: removes this dev box's sandbox from every worker."""
    if words:
        return _usage("clean")
    outcome = _object(connect().clean())
    for host, error in outcome.items():
        print(f"{host}: {error or 'sandbox removed'}")
    return 1 if any(outcome.values()) else 0


def completion(words: Sequence[str]) -> int:
    """``completion bash|zsh|fish``: prints the shell's script."""
    try:
        (shell,) = words
        print(commands.completion(shell), end="")
    except (ValueError, KeyError):
        return _usage("completion bash|zsh|fish")
    return 0


def cache(words: Sequence[str]) -> int:
    """``cache [clear]``: prints the object cache's counts, or empties it."""
    if list(words) not in ([], ["clear"]):
        return _usage("cache [clear]")
    if words:
        connect().clear_cache()
    known = _object(connect().status()).get("cache")
    if known is None:
        print('there is no object cache: "cache_bytes" in config.json is 0')
        return 0
    print("\n".join(describe.cache_lines(known)))
    return 0


def explain(words: Sequence[str]) -> int:
    """``explain -- COMPILER ARGS``: 0 when it would be distributed, 1 when not."""
    argv = without_ourselves(words[1:] if words[:1] == ["--"] else words)
    if not argv:
        return _usage("explain -- COMPILER ARGS...")
    reply = connect().explain(request_of(argv, os.environ, find_terminal()))
    if not reply.reason:
        print("distributed" + (f"\n  object cache: {reply.cache}" if reply.cache else ""))
        return 0
    detail = f" ({reply.detail})" if reply.detail else ""
    meaning = describe.meaning(reply.reason)
    print(f"local: {reply.reason}{detail}" + (f"\n  {meaning}" if meaning else ""))
    return LOCAL


def dashboard(words: Sequence[str]) -> int:
    """``dashboard [--open]``: prints a link that opens the dashboard in a browser, or opens it."""
    if list(words) not in ([], ["--open"]):
        return _usage("dashboard [--open]")
    link = str(_object(connect().dashboard()).get("link", ""))
    if not words:
        print(link)
        return 0
    import webbrowser

    clean = clean_environment(os.environ)
    os.environ.clear()  # the browser inherits it
    os.environ.update(clean)
    if webbrowser.open(link):
        return 0
    print(f"no browser was found; open this link yourself, within two minutes:\n{link}")
    return 1


def _object(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = decoded(body, dict)
    return found


def _usage(text: str) -> int:
    print(f"usage: dist_build.exe {text}", file=sys.stderr)
    return USAGE
