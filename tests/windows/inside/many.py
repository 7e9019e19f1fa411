"""Run by Windows' Python: starts many commands, some at once, as builds do. Says which failed."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def run(line: str) -> str:
    """What a command that failed said."""
    done = subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    said = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    return "" if done.returncode == 0 else f"{done.returncode}: {line}\n{said}"


if __name__ == "__main__":
    lines = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with ThreadPoolExecutor(int(sys.argv[2])) as pool:
        failed = [said for said in pool.map(run, lines) if said]
    print("\n".join(failed[:5]))
    sys.exit(bool(failed))
