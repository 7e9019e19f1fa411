"""Programs that call another with more options: stand-ins for compilers built in another way."""

import json
import subprocess
from pathlib import Path

from tests.support.tools import need

SOURCE = """#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static const char *more[] = {%s};
enum { MORE = sizeof more / sizeof *more };
int main(int argc, char **argv) {
    char *words[MORE + argc + 1], **next = words;
    const char *home = getenv("HOME");
    *next++ = %s;
    for (int n = 0; n < MORE; n++)
        asprintf(next++, more[n], home ? home : "");
    while (*++argv)
        *next++ = *argv;
    *next = NULL;
    execv(*words, words);
    return 126;
}
"""


def make_stand_in(path: Path, program: str, *options: str) -> None:
    """Compile at ``path`` what runs ``program`` with ``options`` before its own arguments. In an
    option ``%s`` stands for the home directory."""
    called = json.dumps(need(program))
    text = SOURCE % (", ".join(map(json.dumps, options)) or "0", called)
    if not options:
        text = text.replace("= sizeof more / sizeof *more", "= 0")
    words = [need("gcc"), "-D_GNU_SOURCE", "-w", "-x", "c", "-", "-o", str(path)]
    subprocess.run(words, input=text.encode(), check=True)
