"""`tunesmith serve` as a process of its own, until a block ends."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence


@contextlib.contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Run a command that serves at a free port, wait until it is ready, and give its address."""
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        try:
            log = [*_until_served(server.stderr)]
            address = re.search(r"http://\S+:\d+", log[-1] if log else "")
            assert address, "".join(log)
            while server.poll() is None:
                with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{address[0]}/readyz"):
                    break
                time.sleep(0.05)
            yield address[0]
        finally:
            server.terminate()


def _until_served(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if "http://" in line:
            return
