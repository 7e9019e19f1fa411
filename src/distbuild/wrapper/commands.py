"""The table of the wrapper's subcommands, and the texts that are made from it: the usage, shell
completions and the manual page. Pure."""

import shlex
from typing import Final, NamedTuple

from distbuild import __version__


class Subcommand(NamedTuple):
    """``arguments`` as the usage shows them; ``words``: those that a shell completes."""

    name: str
    arguments: str
    about: str
    words: tuple[str, ...] = ()


SUBCOMMANDS: Final = (
    Subcommand(
        "setup",
        "[--invite | --undo]",
        "set this dev box up; invite build machines",
        (
            *("--invite", "--undo", "--address", "--port", "--no-service", "--new-certificates"),
            *("--home", "--help"),
        ),
    ),
    Subcommand("workers", "[remove W]", "the workers that have joined; remove one", ("remove",)),
    Subcommand("status", "[--json]", "what the syncer and the workers do", ("--json",)),
    Subcommand("install", "", 'copy what "dirs" reach to the workers'),
    Subcommand("clean", "", "remove the sandboxes from the workers"),
    Subcommand("doctor", "", "check the set-up, step by step"),
    Subcommand("explain", "-- COMPILER ARGS...", "would it be distributed, and why not", ("--",)),
    Subcommand("cache", "[clear]", "hits and misses of the object cache; empty it", ("clear",)),
    Subcommand(
        "builds",
        "[show [N] | compare A B]",
        "what the last builds did",
        ("show", "compare", "--json"),
    ),
    Subcommand("trace", "[N]", "a build's timeline, for Perfetto or speedscope"),
    Subcommand("top", "", "the present build and workers, until Ctrl-C"),
    Subcommand("dashboard", "[--open]", "a link to see builds in a browser", ("--open",)),
    Subcommand(
        "completion",
        "bash|zsh|fish",
        "a script that completes these words in a shell",
        ("bash", "zsh", "fish"),
    ),
    Subcommand("version", "", "which version this is"),
    Subcommand("help", "", "this text"),
)
NAMES: Final = tuple(each.name for each in SUBCOMMANDS)
PROGRAM: Final = "dist_build.exe"
_COMPILE = "COMPILER ARGS..."
_ABOUT_COLUMN = 53


def usage() -> str:
    """The text of ``--help``."""
    lines = [(f"usage: {PROGRAM} {_COMPILE}", "compile on the farm")]
    lines += [
        (f"       {PROGRAM} {each.name} {each.arguments}".rstrip(), each.about)
        for each in SUBCOMMANDS
    ]
    return "\n".join(f"{words:{_ABOUT_COLUMN}} {about}" for words, about in lines)


def completion(shell: str) -> str:
    """The completion script for "bash", "zsh" or "fish". Raises KeyError for another shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _bash() -> str:
    cases = "".join(
        f'        {each.name}) COMPREPLY=($(compgen -W "{" ".join(each.words)}" -- "$word")) ;;\n'
        for each in SUBCOMMANDS
        if each.words
    )
    return f"""_dist_build() {{
    local word=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -c -W "{" ".join(NAMES)}" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _dist_build {PROGRAM} dist_build
"""


def _zsh() -> str:
    names = "\n".join(f"        {shlex.quote(f'{each.name}:{each.about}')}" for each in SUBCOMMANDS)
    cases = "".join(
        f"        {each.name}) compadd -- {' '.join(each.words)} ;;\n"
        for each in SUBCOMMANDS
        if each.words
    )
    return f"""#compdef {PROGRAM} dist_build
_dist_build() {{
    local -a subcommands=(
{names}
    )
    if (( CURRENT == 2 )); then
        _describe subcommand subcommands
        _command_names -e
        return
    fi
    case $words[2] in
{cases}        *) _files ;;
    esac
}}
compdef _dist_build {PROGRAM} dist_build
# A file that zsh loads by its name is run for the first completion.
if [ "$funcstack[1]" = _dist_build ]; then _dist_build; fi
"""


def _fish() -> str:
    lines = []
    for program in (PROGRAM, "dist_build"):
        for each in SUBCOMMANDS:
            first = f"complete -c {program} -n __fish_use_subcommand"
            lines.append(f"{first} -a {each.name} -d {_fish_word(each.about)}")
            words = " ".join(each.words)
            seen = f'-n "__fish_seen_subcommand_from {each.name}"'
            if words:
                lines.append(f"complete -c {program} -f {seen} -a '{words}'")
    return "\n".join(lines) + "\n"


def _fish_word(text: str) -> str:
    return "'" + text.replace("'", r"\'") + "'"


def manual() -> str:
    """The manual page in man(7)'s macros."""
    parts = [
        f'.TH DIST_BUILD 1 "" "dist_build {__version__}" "User Commands"',
        ".SH NAME",
        r"dist_build \- compile C and C++ on other machines",
        ".SH SYNOPSIS",
        f".B {PROGRAM}",
        f".I {_COMPILE}",
        ".br",
        f".B {PROGRAM}",
        ".I SUBCOMMAND",
        ".SH DESCRIPTION",
        "Put before a compiler's command, the program has another machine compile. Objects, output"
        " and exit code equal the local compiler's. After any failure it runs the local compiler.",
        ".SH SUBCOMMANDS",
    ]
    for each in SUBCOMMANDS:
        words = f"{each.name} {each.arguments}".rstrip()
        parts += [".TP", rf".B {words.replace('-', chr(92) + '-')}", f"{each.about}."]
    parts += [
        ".SH ENVIRONMENT",
        ".TP",
        ".B DIST_BUILD_HOME",
        "Configuration, certificates and state; default: ~/dist_build.",
        ".TP",
        ".B DIST_BUILD_VERBOSE=1",
        "One line for each command; 2: with the phases of its job.",
        ".TP",
        ".B DIST_BUILD_FALLBACK=0",
        "No local compile after a failure: exit code 103.",
        ".SH EXIT STATUS",
        "The compiler's; 103 as above; 126, 127: the local compiler cannot be run, is not found.",
    ]
    return "\n".join(parts) + "\n"
