"""The object cache of a syncer: finds the result of an equal compile before the queue is asked, and
keeps proven results.

A result is kept if its inputs were verified, see ``syncer.verify``; ``variants`` says when it is
valid. What the inputs contain now is taken from the mirror. Only the real paths of search
directories are read from the disk.
"""

import collections
import contextlib
import functools
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec

from distbuild.cache.describing import Describer, surroundings
from distbuild.cache.lookups import is_plain_word
from distbuild.cache.searched_names import NotKept
from distbuild.cache.storage import Storage, Stored, stamp_of
from distbuild.cache.variants import (
    Candidates,
    InputPair,
    Variant,
    differences,
    first_changed,
    is_settled,
    is_valid,
    packed,
    unpacked,
)
from distbuild.farm.executor import Task
from distbuild.farm.results import objection_to_outputs
from distbuild.mirror.live import Mirroring
from distbuild.mirror.scan import Scanner
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import ResultRequest
from distbuild.system import disk
from distbuild.system.paths import WINDOWS

log = logging.getLogger(__name__)

#: Raised when a key or a description gets another meaning, or when results were kept that may not
#: be.
VERSION = 4
#: Results of one command and source: the states of its headers that it was compiled with.
MAX_VARIANTS = 8
#: Commands whose results are known in memory; the others are read from the storage again.
MAX_KNOWN = 5_000
#: Inputs that the variants in memory share.
MAX_SHARED = 200_000
#: Bytes of results that wait to be kept; above it results are not kept.
MAX_WAITING_BYTES = 64 * 1024 * 1024
#: Results are kept together with those that come so soon after them (seconds): a transaction costs
#: as much as a result.
GATHER_S = 0.1
#: The name under which a result of the cache is shown instead of a worker's.
SHOWN = "cache"
#: Options after which texts cannot be read as they are here. A traditional preprocessor makes one
#: name of two with a comment between them. A compiled module is made with other texts.
_RECODING = ("-finput-charset", "-fmodule", "-fplugin", "-traditional")


class Lookup(msgspec.Struct, frozen=True):
    """What the cache has for a task. ``key`` None: it is not cacheable. ``around``: its
    ``surroundings``. ``is_checked``: the hit is to be compared with a compile."""

    key: bytes | None
    result: ResultRequest | None = None
    around: tuple[int | str, ...] | None = ()
    is_checked: bool = False


class _Unwritten(msgspec.Struct, frozen=True):
    lookup: Lookup
    key: bytes
    task: Task
    result: ResultRequest


_result_decoder = msgspec.msgpack.Decoder(ResultRequest)


class ObjectCache:
    """Finds and keeps results. ``stop`` keeps those that wait. Thread-safe."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        mirroring: Mirroring,
        scanner: Scanner,
        verify_hits: int = 0,
    ) -> None:
        """``verify_hits``: of so many hits one is to be compared with a compile; 0: none."""
        self._mirroring = mirroring
        self._storage = Storage(path, max_bytes)
        self._candidates = Candidates(mirroring.manifest)
        self._describer = Describer(mirroring, scanner, self._candidates)
        self._known: dict[bytes, list[Variant]] = {}
        self._shared: dict[InputPair, InputPair] = {}
        self._changed = threading.Condition()
        self._waiting = collections.deque[_Unwritten]()
        self._waiting_bytes = 0
        self._is_busy = self._is_stopping = False
        self._verify_hits = verify_hits
        self.hits = 0
        #: Hits that were compared with a compile, and those that were not equal.
        self.checked = self.wrong = 0
        self.misses = Counter[str]()
        self.unkept = Counter[str]()
        self._thread = threading.Thread(target=self._run, name="object cache", daemon=True)
        self._thread.start()

    def find(self, task: Task) -> Lookup:
        """The result that a compile of this task would have, if it is known."""
        around = surroundings(task)
        key = self.key(task, around)
        why = "not cacheable"
        if key is not None:
            try:
                found = self._find(key, task)
            except Exception as error:  # noqa: BLE001 - a damaged cache fails no build
                self._failed(error)
                found = "error"
            if isinstance(found, ResultRequest):
                with self._changed:
                    self.hits += 1
                    is_checked = self._verify_hits > 0 and self.hits % self._verify_hits == 0
                return Lookup(key, found, around, is_checked)
            why = found
        if task.stopwatch is not None:
            task.stopwatch.missed = why
        with self._changed:
            self.misses[why] += 1
        return Lookup(key, None, around)

    def _compare(self, key: bytes, hit: ResultRequest, task: Task, result: ResultRequest) -> None:
        """Compare a hit with the result of a compile. If they differ, the key's results are
        forgotten."""
        differing = differences(hit, result)
        with self._changed:
            self.checked += 1
            self.wrong += bool(differing)
        if differing:
            log.error(
                "object cache: a hit was not what the compiler gives now: %s, in %s: %s",
                task.command.source,
                task.command.cwd,
                "; ".join(differing),
            )
            self._known.pop(key, None)
            for stored in self._storage.find(key):
                self._storage.drop(stored.number)

    def explain(self, task: Task) -> str:
        """Whether ``find`` has a result, and why not: by the latest result of this command."""
        key = self.key(task, surroundings(task))
        if key is None:
            return "not cacheable"
        variants = self._variants(key)
        if not variants:
            return "miss: never compiled here"
        real = functools.cache(lambda: self._describer.real(task))
        manifest, candidates = self._mirroring.manifest, self._candidates
        if any(is_valid(v, manifest, candidates, task.generation, real) for v in variants):
            return "hit"
        changed = first_changed(variants[0], manifest)
        return f"miss: {_since(changed)}" if changed else "miss: an include may find another file"

    def keep(self, lookup: Lookup, task: Task, result: ResultRequest) -> None:
        """Keep a result that has proved right; costs the caller nothing. ``lookup``: from before
        the compile; a hit in it is compared with the result."""
        key = lookup.key
        if key is not None and lookup.result is not None:
            try:
                self._compare(key, lookup.result, task, result)
            except Exception as error:  # noqa: BLE001 - a damaged cache fails no build
                self._failed(error)
            return
        if key is None or result.exit_code != 0:
            return
        size = _size(result)
        with self._changed:
            if self._waiting_bytes + size > MAX_WAITING_BYTES or self._is_stopping:
                self.unkept["too many at once"] += 1
                return
            if not self._waiting:
                self._changed.notify_all()  # only then: the thread gathers what comes after it
            self._waiting.append(_Unwritten(lookup, key, task, result))
            self._waiting_bytes += size

    def clear(self) -> None:
        """Forget all results."""
        self._storage.clear()
        self._known.clear()

    def stop(self) -> None:
        """Keep the results that wait, and close the storage."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._storage.close()

    def status(self) -> dict[str, object]:
        """Hits, misses by cause, results that were not kept by reason, and the storage's counts."""
        return {
            "hits": self.hits,
            "checked": self.checked,
            "wrong": self.wrong,
            "waiting": len(self._waiting) + self._is_busy,
            "misses": dict(sorted(self.misses.items())),
            "unkept": dict(sorted(self.unkept.items())),
            **self._storage.counts(),
        }

    def _failed(self, error: Exception) -> None:
        """Handle an error of the storage: a damaged file is replaced, a full disk may have room
        later."""
        if self._is_stopping:
            return
        # Any other error than the storage's own is a fault here: its stack is of use.
        log.warning("object cache: %s", error, exc_info=not isinstance(error, sqlite3.Error))
        if not isinstance(error, sqlite3.OperationalError):
            self._known.clear()
            with contextlib.suppress(sqlite3.Error, OSError, ValueError):
                self._storage.renew()

    # --- finding --------------------------------------------------------------------------------

    def key(self, task: Task, around: tuple[int | str, ...] | None) -> bytes | None:
        """The key of an equal compile; None: the result may depend on more than is known here.

        ``around``: its ``surroundings``.
        """
        command = task.command
        is_special = (
            WINDOWS
            or around is None
            or task.worker
            or task.asks_by_macro
            or command.family.speaks_cl
            or command.guessed
            or command.unlisted_files
            or command.makes_ast  # it has the times of all headers
            or any(argument.option.startswith(_RECODING) for argument in command.arguments)
            or not all(map(is_plain_word, command.argv()))
        )
        if is_special:
            return None
        parts = (
            VERSION,
            task.toolchain,
            [os.fsencode(word) for word in command.argv()],
            os.fsencode(command.cwd),
            sorted((name, os.fsencode(value)) for name, value in task.env.items()),
            [(file.path, file.entry.digest) for file in task.files],
            [os.fsencode(directory) for directory in task.output_dirs],
            [os.fsencode(directory) for directory in task.builtin_dirs],
            os.fsencode(task.implicit_include or ""),
            around,
            task.processor,
            task.terminal,
        )
        return hashlib.blake2b(msgspec.msgpack.encode(parts), digest_size=32).digest()

    def _find(self, key: bytes, task: Task) -> ResultRequest | str:
        """The result, or why there is none."""
        variants = self._variants(key)
        real = functools.cache(lambda: self._describer.real(task))
        manifest, candidates = self._mirroring.manifest, self._candidates
        for variant in variants:
            if not is_valid(variant, manifest, candidates, task.generation, real):
                continue
            if self._describer.is_beyond_us(task, variant):
                return "not cacheable"
            body = self._storage.body(key, variant.number, variant.stamp)
            if body is None:  # evicted, cleared, or damaged
                self._known.pop(key, None)
                return "evicted"
            result = _result_decoder.decode(body)
            refused = objection_to_outputs(task, result, task.command.named_outputs())
            return "other output directory" if refused else result
        return "an input changed" if variants else "never compiled"

    def _variants(self, key: bytes) -> list[Variant]:
        known = self._known.get(key)
        if known is None:
            if len(self._shared) >= MAX_SHARED:
                self._shared.clear()
            known = [self._unpacked(stored) for stored in self._storage.find(key)]
            self._remember(key, known)
        return known

    def _unpacked(self, stored: Stored) -> Variant:
        variant = unpacked(stored.number, stored.about, self._shared)
        variant.stamp = stamp_of(stored.about)
        return variant

    def _remember(self, key: bytes, variants: list[Variant]) -> None:
        if len(self._known) >= MAX_KNOWN:
            for old in list(self._known)[: MAX_KNOWN // 2]:
                self._known.pop(old, None)
        self._known[key] = variants

    # --- keeping --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.wait_for(lambda: self._waiting or self._is_stopping)
                self._changed.wait_for(lambda: self._is_stopping, GATHER_S)
                batch = list(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
                self._is_busy = bool(batch)
                if not batch:
                    return
            try:
                with self._storage.batch():
                    for waiting in batch:
                        try:
                            self._keep(waiting)
                        except (NotKept, ProtocolError) as why:
                            self.unkept[str(why)] += 1
            except Exception as error:  # noqa: BLE001 - later results are to be kept
                self._failed(error)
                self.unkept["error"] += len(batch)

    def _keep(self, waiting: _Unwritten) -> None:
        """Keep one result. Raises NotKept."""
        task, result = waiting.task, waiting.result
        if surroundings(task) != waiting.lookup.around:  # a search directory came or went
            raise NotKept("the tree changed meanwhile")
        variant = self._describer.described(task, result)
        manifest = self._mirroring.manifest
        if not is_settled(variant, manifest, self._candidates, task.generation):
            raise NotKept("the tree changed meanwhile")
        body = msgspec.structs.replace(
            result,
            lease_id="",
            worker=SHOWN,
            inputs=[],
            packed_inputs=b"",
            marks=b"",
            ran_us=0,
            cpu_us=0,
            memory_bytes=0,
        )
        about = packed(variant)
        variant.number = self._storage.add(waiting.key, about, msgspec.msgpack.encode(body))
        if not variant.number:
            raise NotKept("too large")
        variant.matched, variant.stamp = task.generation, stamp_of(about)
        self._add(waiting.key, variant)

    def _add(self, key: bytes, variant: Variant) -> None:
        variants = [variant, *self._variants(key)]
        # ``_variants`` may have read the new one from the storage already.
        unique = list({known.number: known for known in reversed(variants)}.values())[::-1]
        for old in unique[MAX_VARIANTS:]:
            self._storage.drop(old.number)
        self._remember(key, unique[:MAX_VARIANTS])


def _since(path: str) -> str:
    """When a file changed, in words."""
    try:
        seconds = max(0, int(time.time() - disk.stat(path).st_mtime))
    except OSError:
        return f"{path} is gone"
    return f"{path} changed, {seconds} s ago"


def _size(result: ResultRequest) -> int:
    packed = sum(len(file.blob.data) for file in result.outputs)
    return packed + len(result.stdout) + len(result.stderr) + len(result.packed_inputs)
