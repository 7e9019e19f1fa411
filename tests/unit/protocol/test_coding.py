"""Messages are decoded by many threads, also the first of a kind."""

import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[3] / "src"
#: Threads that decode the same kinds at the same moment, as workers' requests come after a start.
AT_ONCE = """
import sys, threading
sys.path.insert(0, sys.argv[1])
sys.setswitchinterval(1e-6)
from distbuild.protocol import messages as m
result = m.ResultRequest("l", "w")
sent = [
    (m.ReceivedBatch, m.ResultBatch([result])),
    (m.RenewRequest, m.RenewRequest("w", [], 0.0)),
    (m.ResultRequest, result),
    (m.LeaseRequest, m.LeaseRequest("w", 1, 0.0, [])),
    (m.SubmitRequest, m.SubmitRequest([b"gcc"], b"/", {})),
]
sent = [(kind, m.encode(message)) for kind, message in sent]
barrier = threading.Barrier(8)
def decode_all():
    barrier.wait()
    for kind, data in sent:
        m.decode(data, kind)
threads = [threading.Thread(target=decode_all) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_first_messages_of_a_kind_may_come_at_once() -> None:
    for _ in range(6):  # where it crashes, it does so in every second run
        done = subprocess.run(
            [sys.executable, "-c", AT_ONCE, SRC], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
