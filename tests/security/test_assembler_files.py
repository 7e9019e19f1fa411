"""What an assembler reads by its own directives, however these are spelled: the local object.

The worker sees other files than the dev box wherever the mirror is not: in the project, and in its
own /usr and /etc.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from tests.support.cluster import Cluster, Done, run_here
from tests.support.tools import absent, need

#: Files of the worker's own that a sandbox shows, and that a dev box has as well.
WORKERS_OWN = ("/usr/lib/os-release", "/etc/ld.so.conf")
#: Reasons that are no failure. The last one: only exact at the original paths.
BY_DESIGN = {"assembler_input", "no_namespace"}


class Spelling(msgspec.Struct, frozen=True):
    """One way to have a file read. In all fields ``@`` is the name of the data file, of this
    spelling alone, without its suffix, and ``%TOP%`` the project."""

    text: str
    suffix: str = ".c"
    options: str = ""
    #: Further files of the project.
    more: dict[str, str] = {}
    #: Only for compilers whose name begins so.
    only: str = ""
    #: A program without which there is nothing to compile.
    needs: str = ""


def inline(body: str, *, wrap: str = "__asm__(%s);\n") -> str:
    """A statement with these literals, in the data section."""
    return wrap % f'".section .data\\n" {body} "\\n.text\\n"'


INCBIN = '".incbin \\"@.bin\\""'
SPELLINGS = {
    "plain": Spelling(inline(INCBIN)),
    "adjacent": Spelling(inline('".inc" "bin \\"@.bin\\""')),
    "stringized": Spelling("#define S(a, b) #a #b\n" + inline('S(.inc, bin) " \\"@.bin\\""')),
    "pasted": Spelling(
        "#define C(a, b) a##b\n#define S(a) #a\n#define X(a) S(a)\n"
        + inline('"." X(C(inc, bin)) " \\"@.bin\\""')
    ),
    "macro": Spelling(inline('".macro m_@ a\\n.inc\\\\a \\"@.bin\\"\\n.endm\\nm_@ bin"')),
    "macro of letters": Spelling(
        inline(
            '".macro m_@ a b c d e f\\n.\\\\a\\\\b\\\\c\\\\d\\\\e\\\\f \\"@.bin\\"\\n.endm\\n'
            'm_@ i n c b i n"'
        )
    ),
    "altmacro": Spelling(
        inline('".altmacro\\n.macro m_@ a\\n.inc\\\\a \\"@.bin\\"\\n.endm\\nm_@ bin\\n.noaltmacro"')
    ),
    "altmacro number": Spelling(
        inline(
            '".altmacro\\n.macro m_@ a\\n.incbin \\"@_\\\\a\\\\().bin\\"\\n.endm\\nm_@ %(1+1)\\n'
            '.noaltmacro"'
        ),
        more={"@_2.bin": "the second file"},
    ),
    "irp": Spelling(inline('".irp a, bin\\n.inc\\\\a \\"@.bin\\"\\n.endr"')),
    "irpc": Spelling(
        inline('".irpc c, 34\\n.incbin \\"@_\\\\c\\\\().bin\\"\\n.endr"'),
        more={"@_3.bin": "three", "@_4.bin": "four"},
    ),
    "rept": Spelling(inline('".rept 2\\n.inc" "bin \\"@.bin\\"\\n.endr"')),
    "included source": Spelling(
        inline('".inc" "lude \\"@_i.s\\""'), more={"@_i.s": '.byte 1\n.incbin "@.bin"\n'}
    ),
    "included text": Spelling(
        inline('".inc" "lude \\"@_i.inc\\""'), more={"@_i.inc": ".byte 1,2,3\n"}
    ),
    "included by a macro's name": Spelling(
        inline('".macro m_@ a\\n.include \\"@_\\\\a\\\\().s\\"\\n.endm\\nm_@ j"'),
        more={"@_j.s": ".byte 4\n"},
    ),
    "offset": Spelling(inline('".inc" "bin \\"@.bin\\", 7"')),
    "offset and count": Spelling(inline('".inc" "bin \\"@.bin\\", 7, 5"')),
    "count": Spelling(inline('".inc" "bin \\"@.bin\\", , 5"')),
    "upper case": Spelling(inline('".INC" "BIN \\"@.bin\\""')),
    "-I": Spelling(
        inline('".inc" "bin \\"@_z.bin\\""'), options="-Ideep", more={"deep/@_z.bin": "deep z"}
    ),
    "-Wa,-I": Spelling(
        inline('".inc" "bin \\"@_z.bin\\""'), options="-Wa,-Ideep", more={"deep/@_z.bin": "deep z"}
    ),
    "-Wa,-I of a whole path": Spelling(
        inline('".inc" "bin \\"@_z.bin\\""'),
        options="-Wa,-I%TOP%/deep",
        more={"deep/@_z.bin": "deep z"},
    ),
    "an earlier -I has a file that is not mirrored": Spelling(
        inline('".inc" "bin \\"@_z.o\\""'),
        options="-Ifirst -Ideep",
        more={"first/@_z.o": "first", "deep/@_z.o": "deep"},
    ),
    "hexadecimal": Spelling(inline('"\\x2einc" "bin \\"@.bin\\""')),
    "octal": Spelling(inline('"\\056inc\\142in \\"@.bin\\""')),
    "trigraph": Spelling(inline('"??/056inc??/142in \\"@.bin\\""'), options="-std=c99"),
    "continued lines": Spelling(
        inline('".inc\\\nbin \\"@.bin\\""', wrap="__as\\\nm__(%s);\n"),
    ),
    "raw string": Spelling('asm(R"(\n.section .data\n.inc)" R"(bin "@.bin"\n.text\n)");\n', ".cc"),
    "u8 string": Spelling('asm(u8".section .data\\n.inc" u8"bin \\"@.bin\\"\\n.text");\n', ".cc"),
    "template": Spelling(
        "template <int N> void f() {"
        'asm volatile(".pushsection .data\\n.inc" "bin \\"@.bin\\"\\n.popsection");'
        "}\ntemplate void f<1>();\n",
        ".cc",
    ),
    "-D": Spelling(
        inline('DIRECTIVE " \\"@.bin\\""', wrap="STATEMENT(%s);\n"),
        options='-DSTATEMENT=__asm__ -DDIRECTIVE=".inc""bin"',
    ),
    "-D of the name": Spelling(inline('".incbin " NAME'), options='-DNAME="\\"@.bin\\""'),
    "naked function": Spelling(
        "__attribute__((naked)) void f(void) {" + inline('".inc" "bin \\"@.bin\\""') + "}\n"
    ),
    "statement": Spelling(
        'void f(int a) { __asm__ volatile(".pushsection .data\\n.inc" "bin \\"@.bin\\"\\n"'
        ' ".popsection" :: "r"(a) : "memory"); }\n'
    ),
    "operand": Spelling(
        "extern char incbin[];\nvoid f(void) {"
        '__asm__ volatile(".section .data\\n.%c0 \\"@.bin\\"\\n.text" :: "i"(incbin));}\n',
        options="-fno-pic",
    ),
    "header": Spelling(
        '#include "@_h.h"\n', more={"@_h.h": inline('".inc" "bin \\"@.bin\\""').replace("@_h", "")}
    ),
    "Objective-C": Spelling(inline('".inc" "bin \\"@.bin\\""'), ".m", only="clang"),
    "assembler": Spelling('.macro m a\n.inc\\a "@.bin"\n.endm\n.data\nm bin\n', ".s"),
    "preprocessed assembler": Spelling('#define NAME "@.bin"\n.data\n.incbin NAME\n', ".S"),
    "assembler in a header": Spelling(
        '#include "@_h.S"\n', ".S", more={"@_h.S": '.data\n.incbin "@.bin"\n'}
    ),
    "another suffix": Spelling(
        '.data\n.irp a, bin\n.inc\\a "@.bin"\n.endr\n', ".txt", options="-x assembler"
    ),
    "whole path": Spelling(inline('".inc" "bin \\"%TOP%/@.bin\\""')),
    "the worker's own": Spelling(
        "".join(inline(f'".inc" "bin \\"{path}\\""') for path in WORKERS_OWN)
    ),
    "the kernel's": Spelling(inline('".inc" "bin \\"/proc/version\\", 0, 5"')),
    "climbing": Spelling(inline('".inc" "bin \\"sub/../../up_@.bin\\""')),
    "climbing to the root": Spelling(
        inline(f'".inc" "bin \\"{"../" * 12}usr/lib/os-release\\", 0, 20"')
    ),
    "link": Spelling(inline('".inc" "bin \\"link_@.bin\\""')),
    "link out": Spelling(inline('".inc" "bin \\"out_@.bin\\""')),
    "a file that is not mirrored": Spelling(
        inline('".inc" "bin \\"@_n.o\\""'), more={"@_n.o": "not mirrored"}
    ),
    "blank": Spelling(inline('".inc" "bin \\"@ b.bin\\""'), more={"@ b.bin": "a blank"}),
    "newline": Spelling(inline('".inc" "bin \\"@\\\\012b.bin\\""'), more={"@\nb.bin": "a newline"}),
    "no such file": Spelling(inline('".inc" "bin \\"no_@.bin\\""')),
    "no such instruction": Spelling(inline('"no_such_instruction"')),
    "-g": Spelling(
        inline('".inc" "bin \\"@.bin\\""') + "int f(int a) { return a + 1; }\n",
        options="-g -grecord-gcc-switches -pipe -MD",
    ),
    "-g3 -O2": Spelling(
        inline('".inc" "bin \\"@.bin\\""') + "#define N 1\nint f(int a) { return a + N; }\n",
        options="-g3 -O2 -Wall",
    ),
    "-flto": Spelling(inline('".inc" "bin \\"@.bin\\""'), options="-flto -frandom-seed=1"),
    "fat -flto": Spelling(
        inline('".inc" "bin \\"@.bin\\""'),
        options="-flto -ffat-lto-objects -frandom-seed=1",
        only="gcc",
    ),
    "-S": Spelling(inline('".inc" "bin \\"@.bin\\""'), options="-S"),
    "another assembler": Spelling(
        inline('".inc" "bin \\"@.bin\\""'), options="-fno-integrated-as", only="clang", needs="as"
    ),
    "recorded command": Spelling(
        inline('".inc" "bin \\"@.bin\\""'), options="-g -grecord-command-line", only="clang"
    ),
    "#line of what there is not": Spelling(
        'void f(void) {\n#line 7 "gone.y"\n__asm__("nop");\n}\n', options="-g"
    ),
    "whether there is assembler": Spelling(
        "#if __has_extension(gnu_asm)\nint has;\n#endif\n", only="clang"
    ),
    "whether there is assembler, pasted": Spelling(
        "#define H(a, b) __has_extension(a##b)\n#if H(gnu_, asm)\nint has;\n#endif\n", only="clang"
    ),
    "blocks": Spelling("void f(void) { __asm { nop } }\n", options="-fasm-blocks", only="clang"),
    "harmless": Spelling(
        'void f(void) { __asm__ volatile("nop"); }\nint puts_(int) __asm__("q");\n'
    ),
    "none": Spelling("int none;\n"),
}
COMPILERS = ("gcc", "clang")


class Both(msgspec.Struct):
    """What a command left here and by way of the farm."""

    local: Done
    ours: Done


def _stem(compiler: str, name: str) -> str:
    letters = "".join(c if c.isalnum() else "_" for c in name)
    return f"{compiler}_{letters}_{list(SPELLINGS).index(name)}"


def _made(project: Path, compiler: str, name: str) -> list[str]:
    """Write a spelling's files; its command without the output."""
    spelling, stem = SPELLINGS[name], _stem(compiler, name)

    def meant(text: str) -> str:
        return text.replace("@", stem).replace("%TOP%", str(project))

    (project / f"{stem}.bin").write_text(f"the dev box's data of {stem}\n" * 3)
    (project.parent / f"up_{stem}.bin").write_text(f"above {stem}\n")
    (project.parent / "elsewhere" / f"{stem}.bin").write_text(f"elsewhere {stem}\n")
    (project / f"link_{stem}.bin").symlink_to(f"{stem}.bin")
    (project / f"out_{stem}.bin").symlink_to(project.parent / "elsewhere" / f"{stem}.bin")
    for path, text in spelling.more.items():
        (project / meant(path)).write_text(meant(text))
    source = stem + spelling.suffix
    (project / source).write_text(meant(spelling.text))
    options = meant(spelling.options).split()
    return [compiler, *([] if "-S" in options else ["-c"]), *options, source]


@pytest.fixture(scope="module", params=["namespace", "plain"])
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certs_dir: Path
) -> Iterator[dict[tuple[str, str], Both]]:
    """All spellings and compilers that were chosen; the worker has other files at all paths."""
    bwrap = need("bwrap")
    base = Path(os.path.realpath(tmp_path_factory.mktemp(request.param)))
    top, other = base / "top", base / "other"
    project = top / "project"
    for directory in ("deep", "first", "sub", "build"):
        (project / directory).mkdir(parents=True)
    (top / "elsewhere").mkdir()
    chosen = [
        (str(item.callspec.params["compiler"]), str(item.callspec.params["name"]))
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.function is test_a_directive_gives_the_local_object
        and item.callspec.params["compiled"] == request.param
    ]
    commands = {
        (compiler, name): _made(project, compiler, name)
        for compiler, name in chosen
        if shutil.which(compiler) and (not SPELLINGS[name].needs or need(SPELLINGS[name].needs))
    }
    shutil.copytree(top, other, symlinks=True)
    for path in other.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(b"the worker's own\n" * 4)
    lie = base / "lie"
    lie.write_text("the worker's own\n" * 4)
    farm = Cluster(base / "farm", certs_dir, [{"sandbox": request.param, "num_cores": 4}])
    shown = [word for path in WORKERS_OWN for word in ("--ro-bind", str(lie), path)]
    farm.daemons[0].prefix = [
        *(bwrap, "--dev-bind", "/", "/", "--bind", str(other), str(top), *shown)
    ]
    try:
        farm.start()
        with ThreadPoolExecutor(4) as pool:
            both = {
                key: pool.submit(_both, farm, project, key, words)
                for key, words in commands.items()
            }
            yield {key: future.result() for key, future in both.items()}
        assert farm.jobs()["local"].keys() <= BY_DESIGN
        farm.stop()
    finally:
        farm.kill()


def _both(farm: Cluster, project: Path, key: tuple[str, str], words: list[str]) -> Both:
    """One after the other, into one place: link time optimisation records where that is."""
    path = project / "build" / (_stem(*key) + ".o")
    words = [*words, "-o", f"build/{path.name}"]

    def left(done: Done) -> Done:
        done.files = {"object": path.read_bytes()} if path.exists() else {}
        path.unlink(missing_ok=True)
        return done

    return Both(left(run_here(words, project)), left(farm.run(words, project)))


@pytest.mark.in_turn("compiled", "name", of=3)
@pytest.mark.parametrize(
    ("compiler", "name"),
    [(c, name) for c in COMPILERS for name, s in SPELLINGS.items() if c.startswith(s.only)],
)
def test_a_directive_gives_the_local_object(
    compiled: dict[tuple[str, str], Both], compiler: str, name: str
) -> None:
    if (compiler, name) not in compiled:
        absent(f"{compiler} or what it needs is not installed")
    both = compiled[compiler, name]
    # Of a failed compile the messages name temporary files, and a local one may have its reason.
    assert (both.ours.exit_code, both.ours.files) == (both.local.exit_code, both.local.files)
    assert both.local.exit_code != 0 or b"error" not in both.ours.stderr
