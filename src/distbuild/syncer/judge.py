"""Whether a result is the local compiler's, after the fact: was it made from what the dev box has?

What turns out to be missing is mirrored here, so that the next round finds it. Knows no queue.
"""

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
from distbuild.protocol.messages import FileEntry, InputFile, ResultRequest
from distbuild.syncer import assembled, proof
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


class Judge:
    """Holds results against the mirror."""

    def __init__(self, mirroring: Mirroring, scanner: Scanner) -> None:
        self._mirroring = mirroring
        self._scanner = scanner
        self._texts = Texts()
        self._proved = Proved(self._texts)

    def judge(self, task: Task, result: ResultRequest) -> bool | Local:
        """True: the result is the local compiler's. False: compile again. Local: give it up."""
        try:
            return self._judge(task, result, Inputs(result))
        except ProtocolError as error:
            log.warning("compiled again: %s: %s", result.worker, error)
            return False

    def _judge(self, task: Task, result: ResultRequest, inputs: Inputs) -> bool | Local:
        own = {os.fsdecode(f.path): f.entry for f in task.files}
        if result.disturbed or not self._sources_unchanged(own):
            what = "the tree" if result.disturbed else "the source"
            log.info("compiled again: %s changed meanwhile: %s", what, task.command.source)
            if result.exit_code != 0:
                # Else each round of a busy build is spent on the same placeholder.
                self._mirror(self._compared(inputs.items(), own).withheld)
            return False
        # A dependency file that leaves out system headers does not list all that was read.
        if result.exit_code != 0 and (not inputs or _WITHHELD_MARK.encode() in result.stderr):
            stands = self._judge_failure(task, result)
            lists_none = not inputs and not task.command.family.speaks_cl
            return self._judge_unproved(task, result) if stands is True and lists_none else stands
        if result.exit_code != 0 and assembled.is_of_assembler(task.command, result.stderr):
            return Local(LocalReason.ASSEMBLER_INPUT, task.command.source)
        findings = self._examine(task, inputs, own)
        if obstacle := _obstacle(findings):
            return obstacle
        if findings.in_doubt():
            log.info("compiled again: %s", findings)
            self._mirror(findings.to_mirror())
            self._mirroring.recheck(findings.stale)
            self._mirroring.require(posixpath.dirname(p) for p in findings.stale)
        is_in_doubt = self._covered_more(task, findings, inputs) or findings.in_doubt()
        stands = self._judge_assembled(task, result, own) if result.assembled else True
        return not is_in_doubt if stands is True else stands

    def _judge_assembled(
        self, task: Task, result: ResultRequest, own: dict[str, FileEntry]
    ) -> bool | Local:
        """The same for what the assembler has read, which no dependency file names."""
        manifest = self._mirroring.manifest
        found = assembled.examine(result.assembled, task.command, manifest.get, own)
        if found.obstacle:
            return found.obstacle
        if found.withheld or found.stale:
            log.info("compiled again: %s", found)
        self._mirroring.recheck(found.stale)
        for path in found.withheld:
            self._mirroring.want(path)
            if not isinstance(manifest.get(path), FileEntry):
                return Local(LocalReason.ASSEMBLER_INPUT, path)
        return not (found.withheld or found.stale)

    def _covered_more(self, task: Task, findings: proof.Findings, inputs: Inputs) -> bool:
        """Mirror what texts ask for outside the mirrored directories; whether that was new."""
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
                inputs.paths(), searched, shallow, manifest.get, disk.exists
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

    def _judge_failure(self, task: Task, result: ResultRequest) -> bool | Local:
        """A failed compile lists no inputs. It stands unless a file of ours was missing."""
        if _WITHHELD_MARK.encode() in result.stderr:
            return self._want_withheld(task, result)
        if assembled.speaks(result.stderr):
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

    def _judge_unproved(self, task: Task, result: ResultRequest) -> bool | Local:
        """The compiler gave up before it listed what it had read. What it complains of may come of
        an answer that it would not get here: the local one has the last word.

        A complaint about no place in a text is one about the command line.
        """
        named = dict.fromkeys(path for path, _ in places(plain(result.stderr)))
        files = [task.command.absolute(path) for path in named if not path.startswith("<")]
        if not files and not _hides_places(task):
            return True
        # A worker may name any file: only what it can have read is looked at here.
        mirrored = [path for path in files if self._mirroring.manifest.resolve(path) is not None]
        if cover_odd_files(self._mirroring, task, mirrored, by_macro=True):
            return False
        return Local(LocalReason.UNPROVED_FAILURE, task.command.source)

    def _shallow_searched(self, task: Task) -> list[str]:
        """Search directories of which only the top is mirrored."""
        shallow = self._mirroring.roots.shallow()
        searched = {disk.realpath(d) for d in task.search_dirs} if shallow else set()
        return [path for path in shallow if path in searched]

    def _judge_missing(self, task: Task, result: ResultRequest, *, doubtful: bool) -> bool | Local:
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
            # Another job may have had it mirrored since this one began.
            if self._mirror(candidates) or self._came_later(task, candidates):
                return False
            held = self._mirroring.manifest.get
            unheld = (p for p in candidates if not isinstance(held(disk.realpath(p)), FileEntry))
            if path := next(unheld, ""):
                return Local(LocalReason.INPUT_NOT_MIRRORED, path)
        # A file may be missing that is in a partly mirrored directory, or that was not named.
        if doubtful and not lists_inputs:
            return Local(LocalReason.INPUT_NOT_MIRRORED, task.command.source)
        return True

    def _came_later(self, task: Task, paths: Iterable[str]) -> bool:
        """Whether any of these files was not yet in the mirror, as it is, when the job began."""
        is_newer = self._mirroring.manifest.is_newer
        return any(is_newer(disk.realpath(path), task.generation) for path in paths)

    def _want_withheld(self, task: Task, result: ResultRequest) -> bool | Local:
        """The compiler ran into a placeholder, and says in which file."""
        names = blamed(result.stderr, _WITHHELD_MARK)
        paths = [task.command.absolute(name) for name in names]
        if self._mirror(paths):
            return False
        return Local(LocalReason.INPUT_NOT_MIRRORED, ", ".join(paths[:1]))

    def _mirror(self, paths: list[str]) -> bool:
        """Add files, and the directories they are in, to the mirror; whether that changed it."""
        before = self._mirroring.manifest.generation
        self._mirroring.require(posixpath.dirname(path) for path in paths)
        for path in paths:
            self._mirroring.want(path)
        return self._mirroring.manifest.generation > before

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
    if findings.twin:
        return Local(LocalReason.HARD_LINKS, findings.twin)
    if findings.precompiled:
        return Local(LocalReason.PRECOMPILED_HEADER, findings.precompiled)
    return None


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
