"""Whether a result is the local compiler's, after the fact: was it made from what the dev box has?

What turns out to be missing is mirrored here, so that the next round finds it. Knows no queue.
"""

import enum
import io
import logging
import os
import posixpath
from collections.abc import Iterable

from distbuild import disk
from distbuild.command.locations import blamed, places, plain
from distbuild.command.missing import MissingInclude, missing_includes
from distbuild.command.model import Family, Local, LocalReason
from distbuild.command.searching import angle_dirs
from distbuild.mirror.manifest import PRECOMPILED_SUFFIXES
from distbuild.mirror.scan import Scanner
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import Entry, FileEntry, InputFile, ResultRequest
from distbuild.syncer import proof
from distbuild.syncer.executor import Task
from distbuild.syncer.mirroring import Mirroring
from distbuild.syncer.odd import cover_asked, cover_odd_files
from distbuild.syncer.proved import Inputs, Proved
from distbuild.syncer.texts import Texts

log = logging.getLogger(__name__)

_WITHHELD_MARK = "dist_build_withheld"
#: Of a clang that names no places in its messages, which are in English always.
_NO_PLACES = "-fno-show-source-location"
_NOT_FOUND = b"file not found"


class Verdict(enum.Enum):
    """What becomes of a result that does not leave it to the local compiler."""

    STANDS = "stands"
    AGAIN = "compile again"
    #: The next round has a file that this one lacked: it gets further.
    AGAIN_WITH_MORE = "compile again, with more of the mirror"


class Judge:
    """Holds results against the mirror."""

    def __init__(self, mirroring: Mirroring, scanner: Scanner) -> None:
        self._mirroring = mirroring
        self._scanner = scanner
        self._texts = Texts()
        self._proved = Proved(self._texts)

    def judge(self, task: Task, result: ResultRequest) -> Verdict | Local:
        """Whether the result is the local compiler's. Local: give it up."""
        try:
            return self._judge(task, result, Inputs(result))
        except ProtocolError as error:
            log.warning("compiled again: %s: %s", result.worker, error)
            return Verdict.AGAIN

    def _judge(self, task: Task, result: ResultRequest, inputs: Inputs) -> Verdict | Local:
        own = {os.fsdecode(f.path): f.entry for f in task.files}
        if result.disturbed or not self._sources_unchanged(own):
            what = "the tree" if result.disturbed else "the source"
            log.info("compiled again: %s changed meanwhile: %s", what, task.command.source)
            lacking: list[str] = []
            if result.exit_code != 0:
                # Else each round of a busy build is spent on the same placeholder.
                lacking = [
                    *self._compared(inputs.items(), own).withheld,
                    *_blamed(task, result),
                ]
            return _again(with_more=self._bring(task, lacking))
        # A dependency file that leaves out system headers does not list all that was read.
        if result.exit_code != 0 and (not inputs or _WITHHELD_MARK.encode() in result.stderr):
            stands = self._judge_failure(task, result)
            lists_none = not inputs and not task.command.family.speaks_cl
            if stands is Verdict.STANDS and lists_none:
                return self._judge_unproved(task, result)
            return stands
        findings = self._examine(task, inputs, own)
        if obstacle := _obstacle(findings):
            return obstacle
        with_more = False
        if findings.in_doubt():
            log.info("compiled again: %s", findings)
            with_more = self._bring(task, findings.to_mirror())
            self._mirroring.recheck(findings.stale)
            self._mirroring.require(posixpath.dirname(p) for p in findings.stale)
        with_more |= self._covered_more(task, findings, inputs)
        if with_more or findings.in_doubt():
            return _again(with_more=with_more)
        return Verdict.STANDS

    def _covered_more(self, task: Task, findings: proof.Findings, inputs: Inputs) -> bool:
        """Mirror what texts ask for outside the mirrored directories; whether that was lacking."""
        covered = cover_odd_files(self._mirroring, task, findings.odd)
        partly = self._shallow_searched(task)
        if partly or findings.asks_by_macro or task.asks_by_macro:
            covered |= cover_asked(self._mirroring, self._texts, task, inputs.items(), partly)
        return covered

    def _examine(self, task: Task, inputs: Inputs, own: dict[str, FileEntry]) -> proof.Findings:
        manifest = self._mirroring.manifest
        headers, shallow = self._unseen(task), self._shallow_searched(task)
        # clang goes by inodes, of which a tree has one for each name.
        twins = self._scanner.twins() if task.command.family.is_clang else {}
        is_asking = bool(headers or shallow or twins) or task.asks_by_macro
        if not is_asking and self._proved.knows(inputs, task.files, manifest):
            return proof.Findings()
        rest = self._proved.rest(inputs, {f.path for f in task.files}, manifest)
        findings = self._compared(rest, own)
        if headers:
            findings.precompiled = proof.precompiled(
                inputs.paths(), self._spelled(task.search_dirs), headers, manifest.resolve
            )
        if shallow:
            searched = self._spelled(task.search_dirs)
            findings.shadowing = proof.shadowing(
                inputs.paths(), searched, shallow, lambda p: self._had(task, p), disk.exists
            )
        if twins:
            findings.twin = proof.twin(inputs.paths(), twins)
        return findings

    def _compared(self, inputs: list[InputFile], own: dict[str, FileEntry]) -> proof.Findings:
        return proof.examine(inputs, self._mirroring.manifest.get, own, self._texts.about)

    def _spelled(self, directories: Iterable[str]) -> list[str]:
        return [self._mirroring.manifest.spelled(directory) for directory in directories]

    def _unseen(self, task: Task) -> list[str]:
        """Precompiled headers that the compiler did not find as they are on the dev box.

        Only gcc takes them wherever they were made: clang wants the very times of all headers.
        """
        manifest = self._mirroring.manifest
        if not manifest.precompiled:
            return []
        command = task.command
        takes = command.family is Family.GCC and command.needs_original_paths
        return [
            path
            for path in sorted(manifest.precompiled)
            if not (takes and isinstance(manifest.get(path), FileEntry))
            or manifest.is_newer(path, task.generation)
        ]

    def bring(self, path: str) -> bool:
        """Mirror a precompiled header; whether it is there now."""
        self._mirroring.want(path)
        return isinstance(self._mirroring.manifest.get(disk.realpath(path)), FileEntry)

    def _sources_unchanged(self, own: dict[str, FileEntry]) -> bool:
        for path, entry in own.items():
            now = self._scanner.file(path)
            if not isinstance(now, FileEntry) or now.digest != entry.digest:
                return False
        return True

    def _judge_failure(self, task: Task, result: ResultRequest) -> Verdict | Local:
        """A failed compile lists no inputs. It stands unless a file of ours was missing."""
        if _WITHHELD_MARK.encode() in result.stderr:
            return self._want_withheld(task, result)
        if b"ssembler messages" in result.stderr:
            return Local(LocalReason.ASSEMBLER_INPUT, task.command.source)
        if unseen := self._unseen(task):
            searched = {disk.realpath(d) for d in task.search_dirs}
            for path in unseen:
                if posixpath.dirname(path) in searched:
                    return Local(LocalReason.PRECOMPILED_HEADER, path)
        doubtful = bool(self._shallow_searched(task)) or (
            _NOT_FOUND in result.stderr and _hides_places(task)
        )
        return self._judge_missing(task, result, doubtful=doubtful)

    def _judge_unproved(self, task: Task, result: ResultRequest) -> Verdict | Local:
        """The compiler gave up before it listed what it had read. What it complains of may come of
        an answer that it would not get here: the local one has the last word.

        A complaint about no place in a text is one about the command line.
        """
        named = dict.fromkeys(path for path, _ in places(plain(result.stderr)))
        files = [task.command.absolute(path) for path in named if not path.startswith("<")]
        if not files and not _hides_places(task):
            return Verdict.STANDS
        # A worker may name any file: only what it can have read is looked at here.
        mirrored = [path for path in files if self._mirroring.manifest.resolve(path) is not None]
        if cover_odd_files(self._mirroring, task, mirrored, by_macro=True):
            return Verdict.AGAIN_WITH_MORE
        return Local(LocalReason.UNPROVED_FAILURE, task.command.source)

    def _shallow_searched(self, task: Task) -> list[str]:
        """Search directories of which only the top is mirrored."""
        shallow = self._mirroring.roots.shallow()
        searched = {disk.realpath(d) for d in task.search_dirs} if shallow else set()
        return [path for path in shallow if path in searched]

    def _judge_missing(
        self, task: Task, result: ResultRequest, *, doubtful: bool
    ) -> Verdict | Local:
        candidates: list[str] = []
        # Of a compiler that lists what it reads, what it does not list it is not believed.
        lists_inputs = not task.command.family.speaks_cl
        for missing in missing_includes(result.stderr, lambda p, n: self._line(task, p, n)):
            if missing.name is None:
                if lists_inputs:
                    continue
                return Local(LocalReason.INPUT_NOT_MIRRORED, missing.includer)
            paths = [posixpath.join(place, missing.name) for place in _places(task, missing)]
            for path in paths:
                precompiled = next((p for p in _beside(path) if disk.exists(p)), None)
                if precompiled is not None:
                    # A compiler takes it also where the header itself is missing.
                    return Local(LocalReason.PRECOMPILED_HEADER, precompiled)
            candidates.extend(p for p in paths if disk.isfile(p))
        if candidates:
            if self._bring(task, candidates):
                return Verdict.AGAIN_WITH_MORE
            held = self._mirroring.manifest.get
            unheld = (p for p in candidates if not isinstance(held(disk.realpath(p)), FileEntry))
            if path := next(unheld, ""):
                return Local(LocalReason.INPUT_NOT_MIRRORED, path)
        # A file may be missing that is in a partly mirrored directory, or that was not named.
        if doubtful and not lists_inputs:
            return Local(LocalReason.INPUT_NOT_MIRRORED, task.command.source)
        return Verdict.STANDS

    def _want_withheld(self, task: Task, result: ResultRequest) -> Verdict | Local:
        """The compiler ran into a placeholder, and says in which file."""
        paths = _blamed(task, result)
        if self._bring(task, paths):
            return Verdict.AGAIN_WITH_MORE
        return Local(LocalReason.INPUT_NOT_MIRRORED, ", ".join(paths[:1]))

    def _bring(self, task: Task, paths: Iterable[str]) -> bool:
        """Add files, and the directories they are in, to the mirror; whether the task lacked one.

        Not whether that changed the mirror: another job may have had the same file mirrored since
        this one began.
        """
        files = list(paths)
        self._mirroring.require(posixpath.dirname(path) for path in files)
        for path in files:
            self._mirroring.want(path)
        has_newer = self._mirroring.manifest.has_newer
        return any(has_newer(path, task.generation) for path in files)

    def _had(self, task: Task, path: str) -> Entry | None:
        """What the task's tree had at a real path; None also where it may have had nothing yet."""
        manifest = self._mirroring.manifest
        return None if manifest.is_newer(path, task.generation) else manifest.get(path)

    @staticmethod
    def _line(task: Task, path: str, number: int) -> bytes | None:
        try:
            with io.BufferedReader(disk.open_to_read(task.command.absolute(path))) as file:
                for at, line in enumerate(file, start=1):
                    if at == number:
                        return line
        except OSError:
            return None
        return None


def _obstacle(findings: proof.Findings) -> Local | None:
    """What only the local compiler can do."""
    if findings.reads_more:
        return Local(LocalReason.ASSEMBLER_INPUT, findings.reads_more)
    if findings.twin:
        return Local(LocalReason.HARD_LINKS, findings.twin)
    if findings.precompiled:
        return Local(LocalReason.PRECOMPILED_HEADER, findings.precompiled)
    return None


def _again(*, with_more: bool) -> Verdict:
    return Verdict.AGAIN_WITH_MORE if with_more else Verdict.AGAIN


def _blamed(task: Task, result: ResultRequest) -> list[str]:
    """The files in which the compiler met the text of a placeholder, as it says."""
    return [task.command.absolute(name) for name in blamed(result.stderr, _WITHHELD_MARK)]


def _hides_places(task: Task) -> bool:
    return any(argument.option == _NO_PLACES for argument in task.command.arguments)


def _places(task: Task, missing: MissingInclude) -> list[str]:
    """Where the compiler has looked; it may be that it would find nothing on the dev box either."""
    if missing.angle:
        return [*angle_dirs(task.command, task.env), *task.builtin_dirs]
    includer = task.command.absolute(missing.includer)
    return [posixpath.dirname(includer), *task.search_dirs]


def _beside(header: str) -> list[str]:
    """Where a compiler looks for a header's precompiled form."""
    return [header + suffix for suffix in PRECOMPILED_SUFFIXES]
