"""Two processes that train together on the CPU: a job is loaded once, and its second rank is a copy of the first.

A test calls :func:`ran`; the job, a script, calls :func:`as_each_rank`.
"""

import os
import signal
import socket
import subprocess
import sys
import traceback

#: What the launchers of Lightning and of torch call a process's number.
NAMES = ("RANK", "LOCAL_RANK")


def ran(job, *words, folder, timeout, **environment):
    """Run ``python job words…`` in a folder, and see that both of its ranks end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", job, *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **shared, **environment},
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=timeout)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[1]
    assert process.returncode == 0, said[-6000:]


def as_each_rank(work):
    """Call ``work(rank)`` as rank zero and, in a forked copy of this process, as rank one; exit with what became of both."""
    os.fsync = lambda descriptor: None  # as in tests/conftest.py
    child = os.fork()
    rank = 1 if child == 0 else 0
    os.environ.update(dict.fromkeys(NAMES, str(rank)))
    code = 0
    try:
        work(rank)
    except BaseException:  # noqa: BLE001  # the copy must not go on as if it were the first
        traceback.print_exc()
        code = 1
    if child:
        code |= bool(os.waitpid(child, 0)[1])
    sys.stderr.flush()
    os._exit(code)
