"""A process that serves takes what it may have."""

import subprocess
import sys

SCRIPT = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))
from diego_py.service import descriptors
descriptors.raise_limit()
files = [open("/dev/null") for _ in range(150)]
print(len(files), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_all_that_it_may_have() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert ran.stdout == "150 (200, 200)\n"
