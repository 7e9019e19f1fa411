"""Syncer side: judges whether a worker's result equals the local compiler's, by the inputs it read.

Mirrors the files that turn out to be missing, so that the next round finds them. Knows no queue.
"""

import enum
import io
import logging
import os
import posixpath
from collections.abc import Collection, Iterable

from distbuild.command.diagnostics import (
    MissingInclude,
    blamed,
    is_assemblers,
    missing_includes,
    places,
    plain,
)
from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.search_paths import angle_dirs
from distbuild.farm.executor import Task
from distbuild.mirror.live import Mirroring
from distbuild.mirror.scan import Scanner
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import Entry, FileEntry, InputFile, ResultRequest
from distbuild.syncer import assembler_inputs, evidence
from distbuild.syncer.derivable import Derivable
from distbuild.syncer.evidence import Inputs, Proved
from distbuild.syncer.include_lookup import Texts, cover_asked, cover_odd_files
from distbuild.system import disk

log = logging.getLogger(__name__)

_WITHHELD_MARK = "dist_build_withheld"
#: With this option clang prints no source locations in its messages, which are always in English.
_NO_PLACES = "-fno-show-source-location"
_NOT_FOUND = b"file not found"


class Verdict(enum.Enum):
    """How the judge decided on a result, if not for a local compile."""

    STANDS = "stands"
    AGAIN = "compile again"
    #: The next round has a file that this one lacked, so that it gets further.
    AGAIN_WITH_MORE = "compile again, with more of the mirror"


class Judge:
    """Compares results with the mirror; keeps a cache of inputs that proved right."""

    def __init__(self, mirroring: Mirroring, scanner: Scanner) -> None:
        self._mirroring = mirroring
        self._scanner = scanner
        self._texts = Texts()
        self._proved = Proved(self._texts)

    def judge(self, task: Task, result: ResultRequest) -> Verdict | Local:
        """Whether the result equals the local compiler's. Local: compile locally instead."""
        try:
            verdict = self._judge(task, result, Inputs(result))
        except ProtocolError as error:
            log.warning("compiled again: %s: %s", result.worker, error)
            return Verdict.AGAIN
        if verdict is Verdict.STANDS and result.exit_code != 0 and task.command.module_root:
            # A worker lists what was opened only of a success.
            return Local(LocalReason.UNPROVED_FAILURE, task.command.source)
        return verdict

    def _judge(self, task: Task, result: ResultRequest, inputs: Inputs) -> Verdict | Local:
        own = {os.fsdecode(f.path): f.entry for f in task.files}
        if result.disturbed or not self._sources_unchanged(own):
            what = "the tree" if result.disturbed else "the source"
            log.info("compiled again: %s changed meanwhile: %s", what, task.command.source)
            # Else, in a busy build, each round would fail on the same placeholder.
            with_more = result.exit_code != 0 and self._bring_withheld(task, result, inputs)
            return _again(with_more=with_more)
        if result.exit_code != 0 and evidence.is_precompiled_refused(task.command, result.stderr):
            return self._judge_refused(task, result)
        # A dependency file without system headers does not list all inputs.
        if result.exit_code != 0 and (not inputs or _WITHHELD_MARK.encode() in result.stderr):
            stands = self._judge_failure(task, result, inputs)
            lists_none = not inputs and not task.command.family.speaks_cl
            if stands is Verdict.STANDS and lists_none:
                return self._judge_unproved(task, result)
            return stands
        if result.exit_code != 0 and assembler_inputs.is_of_assembler(task.command, result.stderr):
            return Local(LocalReason.ASSEMBLER_INPUT, task.command.source)
        return self._judge_inputs(task, result, inputs, own)

    def _judge_inputs(
        self, task: Task, result: ResultRequest, inputs: Inputs, own: dict[str, FileEntry]
    ) -> Verdict | Local:
        findings = self._examine(task, inputs, own)
        if findings is not None:
            if obstacle := findings.obstacle():
                return obstacle
            if findings.in_doubt():
                return self._mend(task, findings, inputs)
            if self._covered_more(task, findings, inputs):
                return Verdict.AGAIN_WITH_MORE
        if unproved := evidence.unproved_module(task.command, result, inputs.paths, disk.realpath):
            return Local(LocalReason.MODULES, unproved)
        return self._judge_assembled(task, result, own) if result.assembled else Verdict.STANDS

    def _judge_assembled(
        self, task: Task, result: ResultRequest, own: dict[str, FileEntry]
    ) -> Verdict | Local:
        """Judge by the files that the assembler has read, which no dependency file names."""
        manifest = self._mirroring.manifest
        found = assembler_inputs.examine(result.assembled, task.command, manifest.get, own)
        if found.obstacle:
            return found.obstacle
        if not (found.withheld or found.stale):
            return Verdict.STANDS
        log.info("compiled again: %s", found)
        self._mirroring.recheck(found.stale)
        for path in found.withheld:
            if not self._mirroring.is_secret(path):
                self._mirroring.want(path)
            if not isinstance(manifest.get(path), FileEntry):
                return Local(LocalReason.ASSEMBLER_INPUT, path)
        return _again(with_more=self._lacked(task, found.withheld))

    def _judge_refused(self, task: Task, result: ResultRequest) -> Verdict | Local:
        """Judge a failed compile that may not have used its precompiled header: a file in it was
        withheld or not mirrored."""
        derivable = Derivable(task, self._mirroring, ())
        missed = list(filter(derivable.allows, evidence.missed_precompiled(result.stderr)))
        self._bring(missed, derivable)
        if self._lacked(task, missed):
            return Verdict.AGAIN_WITH_MORE
        return Local(LocalReason.UNPROVED_FAILURE, task.command.source)

    def _mend(self, task: Task, findings: evidence.Findings, inputs: Inputs) -> Verdict | Local:
        """Mirror or recheck the files that this round lacked or read in another state."""
        manifest = self._mirroring.manifest
        unknown = [path for path in findings.stale if manifest.get(path) is None]
        derivable = Derivable(task, self._mirroring, inputs.paths())
        for path in (*findings.withheld, *unknown):
            if not derivable.allows(path):
                return _unfounded(task, result_says=path)
        wanted = [*findings.withheld, *findings.shadowing, *unknown]
        log.info("compiled again: %s", findings)
        self._mirroring.recheck(path for path in findings.stale if path not in unknown)
        self._bring(wanted, derivable)
        with_more = self._lacked(task, wanted)
        with_more |= self._covered_more(task, findings, inputs)
        return _again(with_more=with_more)

    def _covered_more(self, task: Task, findings: evidence.Findings, inputs: Inputs) -> bool:
        """Mirror the files that texts name outside the mirrored directories; whether the task's
        tree lacked one."""
        covered = cover_odd_files(self._mirroring, task, findings.odd)
        partly = self._shallow_searched(task)
        if partly or findings.asks_by_macro or task.asks_by_macro:
            covered |= cover_asked(self._mirroring, self._texts, task, inputs.items(), partly)
        return covered

    def _examine(
        self, task: Task, inputs: Inputs, own: dict[str, FileEntry]
    ) -> evidence.Findings | None:
        """The problems with the inputs; None: all inputs are known to be right, and nothing else
        may matter."""
        manifest = self._mirroring.manifest
        headers = evidence.unseen_precompiled(task, manifest)
        shallow = self._shallow_searched(task)
        # clang identifies files by inode; a worker's tree has no hard links.
        twins = self._scanner.twins() if task.command.family.is_clang else {}
        is_asking = bool(headers or shallow or twins) or task.asks_by_macro
        if not is_asking and self._proved.knows(inputs, task.files, manifest):
            return None
        all_shallow = frozenset(self._mirroring.roots.shallow())
        rest = self._proved.rest(inputs, {f.path for f in task.files}, manifest, all_shallow)
        findings = self._compared(rest, own)
        if headers:
            findings.precompiled = evidence.precompiled(
                inputs.paths(), self._spelled(task.search_dirs), headers, manifest.resolve
            )
        if all_shallow:
            # A file read in such a directory searches it first for its quoted includes.
            around = {posixpath.dirname(os.fsdecode(item.path)) for item in rest}
            shallow = list(dict.fromkeys([*shallow, *(all_shallow & around)]))
        if shallow:
            searched = self._spelled(task.search_dirs)
            findings.shadowing = evidence.shadowing(
                inputs.paths(), searched, shallow, lambda p: self._had(task, p), disk.exists
            )
        if twins:
            findings.twin = evidence.twin(inputs.paths(), twins)
        return findings

    def _compared(self, inputs: list[InputFile], own: dict[str, FileEntry]) -> evidence.Findings:
        return evidence.examine(inputs, self._mirroring.manifest.get, own, self._texts.about)

    def _spelled(self, directories: Iterable[str]) -> list[str]:
        return [self._mirroring.manifest.spelled(directory) for directory in directories]

    def bring(self, task: Task, path: str) -> bool:
        """Mirror a precompiled header; whether it is mirrored now."""
        if not Derivable(task, self._mirroring, ()).allows(path):
            return False
        self._mirroring.want(path)
        return isinstance(self._mirroring.manifest.get(disk.realpath(path)), FileEntry)

    def _sources_unchanged(self, own: dict[str, FileEntry]) -> bool:
        for path, entry in own.items():
            now = self._scanner.file(path)
            if not isinstance(now, FileEntry) or now.digest != entry.digest:
                return False
        return True

    def _judge_failure(self, task: Task, result: ResultRequest, inputs: Inputs) -> Verdict | Local:
        """Judge a failed compile that lists no inputs or met a placeholder. It stands unless a file
        of the dev box was missing."""
        if _WITHHELD_MARK.encode() in result.stderr:
            if self._bring_withheld(task, result, inputs):
                return Verdict.AGAIN_WITH_MORE
            named = (*self._blamed(task, result), task.command.source)
            return Local(LocalReason.INPUT_NOT_MIRRORED, named[0])
        if is_assemblers(result.stderr):
            return Local(LocalReason.ASSEMBLER_INPUT, task.command.source)
        if unseen := evidence.unseen_precompiled(task, self._mirroring.manifest):
            searched = {disk.realpath(d) for d in task.search_dirs}
            for path in unseen:
                if posixpath.dirname(path) in searched:
                    return Local(LocalReason.PRECOMPILED_HEADER, path)
        doubtful = bool(self._shallow_searched(task)) or (
            _NOT_FOUND in result.stderr and hides_places(task.command)
        )
        return self._judge_missing(task, result, doubtful=doubtful)

    def _judge_unproved(self, task: Task, result: ResultRequest) -> Verdict | Local:
        """Judge a compiler that failed before it listed its inputs. Its error may come from a file
        look-up that gives another result on the dev box, so that the local compiler decides.

        An error without a source location is one about the command line, and stands.
        """
        named = dict.fromkeys(path for path, _ in places(plain(result.stderr)))
        files = [task.command.absolute(path) for path in named if not path.startswith("<")]
        if not files and not hides_places(task.command):
            return Verdict.STANDS
        # A worker may name any file: only files that it can have read are opened here.
        own = _own_paths(task)
        mirrored = [path for path in files if self._is_readable(path, own)]
        if cover_odd_files(self._mirroring, task, mirrored, by_macro=True):
            return Verdict.AGAIN_WITH_MORE
        return Local(LocalReason.UNPROVED_FAILURE, task.command.source)

    def _shallow_searched(self, task: Task) -> list[str]:
        """Search directories of which only the top is mirrored."""
        shallow = self._mirroring.roots.wide()
        searched = {disk.realpath(d) for d in task.search_dirs} if shallow else set()
        return [path for path in shallow if path in searched]

    def _judge_missing(
        self, task: Task, result: ResultRequest, *, doubtful: bool
    ) -> Verdict | Local:
        candidates = self._missed(task, result)
        if isinstance(candidates, Local):
            return candidates
        if candidates:
            self._bring(candidates, Derivable(task, self._mirroring, ()))
            if self._lacked(task, candidates):
                return Verdict.AGAIN_WITH_MORE
            held = self._mirroring.manifest.get
            unheld = (p for p in candidates if not isinstance(held(disk.realpath(p)), FileEntry))
            if path := next(unheld, ""):
                return Local(LocalReason.INPUT_NOT_MIRRORED, path)
        # The missing file may be in a partly mirrored directory, or was not named.
        if doubtful and task.command.family.speaks_cl:
            return Local(LocalReason.INPUT_NOT_MIRRORED, task.command.source)
        return Verdict.STANDS

    def _missed(self, task: Task, result: ResultRequest) -> list[str] | Local:
        """Files of the dev box that may be those that the compiler reports as not found."""
        candidates: list[str] = []
        # A message that names no file proves nothing if the compiler lists its inputs.
        lists_inputs = not task.command.family.speaks_cl
        derivable = Derivable(task, self._mirroring, ())
        for missing in missing_includes(result.stderr, lambda p, n: self._line(task, p, n)):
            if missing.name is None:
                if lists_inputs:
                    continue
                return Local(LocalReason.INPUT_NOT_MIRRORED, missing.includer)
            paths = [posixpath.join(place, missing.name) for place in _places(task, missing)]
            if not missing.includer:
                # This name is known only from the worker; others stand in a text read here.
                paths = list(filter(derivable.allows, paths))
            for path in paths:
                taken = next((p for p in evidence.precompiled_beside(path) if disk.exists(p)), None)
                if taken is not None:
                    # A compiler uses it even if the header itself is missing.
                    return Local(LocalReason.PRECOMPILED_HEADER, taken)
            candidates.extend(p for p in paths if disk.isfile(p))
        return candidates

    def _bring_withheld(self, task: Task, result: ResultRequest, inputs: Inputs) -> bool:
        """Mirror the files whose placeholders the compiler met; whether the task lacked one."""
        own = {os.fsdecode(f.path): f.entry for f in task.files}
        listed = self._compared(inputs.items(), own).withheld
        derivable = Derivable(task, self._mirroring, inputs.paths())
        paths = [p for p in (*self._blamed(task, result), *listed) if derivable.allows(p)]
        self._bring(paths, derivable)
        return self._lacked(task, paths)

    def _blamed(self, task: Task, result: ResultRequest) -> list[str]:
        """The files in which the compiler reports the text of a placeholder, if they may have been
        placeholders in the task's tree."""
        manifest = self._mirroring.manifest
        paths = [task.command.absolute(name) for name in blamed(result.stderr, _WITHHELD_MARK)]
        found = []
        for path in paths:
            is_held = manifest.leads_to_file(path)
            changed = is_held and manifest.has_newer(path, task.generation)
            if changed or (not is_held and manifest.resolve(path) is not None):
                found.append(path)
        return found

    def _bring(self, paths: Iterable[str], derivable: Derivable) -> None:
        """Add files to the mirror, and their directories where the command searches them."""
        for path in paths:
            directory = posixpath.dirname(path)
            if derivable.is_searched(disk.realpath(directory)):
                self._mirroring.require([directory])
            self._mirroring.want(path)

    def _lacked(self, task: Task, paths: Iterable[str]) -> bool:
        """Whether one of these files is mirrored now but was not, or not so, in the task's tree.

        It does not matter whether this job changed the mirror: another job may have had the same
        file mirrored since this one began.
        """
        manifest = self._mirroring.manifest
        return any(
            manifest.has_newer(path, task.generation)
            for path in paths
            if manifest.leads_to_file(path)
        )

    def _had(self, task: Task, path: str) -> Entry | None:
        """The task's tree's entry at a real path; None: it had none, or may have had none yet."""
        manifest = self._mirroring.manifest
        return None if manifest.is_newer(path, task.generation) else manifest.get(path)

    def _is_readable(self, path: str, own: Collection[str]) -> bool:
        """Whether the content of a file is in the task's tree."""
        real = self._mirroring.manifest.resolve(path)
        if real is None:
            return False
        return real in own or isinstance(self._mirroring.manifest.get(real), FileEntry)

    def _line(self, task: Task, path: str, number: int) -> bytes | None:
        """A line of a text that a worker names, if the worker can have read that text."""
        if not self._is_readable(task.command.absolute(path), _own_paths(task)):
            return None
        try:
            with io.BufferedReader(disk.open_to_read(task.command.absolute(path))) as file:
                for at, line in enumerate(file, start=1):
                    if at == number:
                        return line
        except OSError:
            return None
        return None


def _again(*, with_more: bool) -> Verdict:
    return Verdict.AGAIN_WITH_MORE if with_more else Verdict.AGAIN


def _own_paths(task: Task) -> list[str]:
    return [os.fsdecode(file.path) for file in task.files]


def _unfounded(task: Task, result_says: str) -> Local:
    """A worker named a file that cannot be derived on the dev box: log it, compile locally."""
    log.warning("%s: a worker asks for %.200r: not given", task.command.source, result_says)
    return Local(LocalReason.INPUT_NOT_MIRRORED, task.command.source)


def hides_places(command: CompileCommand) -> bool:
    """Whether clang prints no source locations in its messages."""
    return any(argument.option == _NO_PLACES for argument in command.arguments)


def _places(task: Task, missing: MissingInclude) -> list[str]:
    """The directories that the compiler searched; the file may be missing on the dev box, too."""
    if missing.angle:
        return [*angle_dirs(task.command, task.env), *task.builtin_dirs]
    includer = task.command.absolute(missing.includer)
    return [posixpath.dirname(includer), *task.search_dirs]
