"""Large buffers are kept for the next image instead of being given back to the system."""

import subprocess
import sys

import pytest

_CODE = """
import resource
{}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(6):
    before = faults()
    buffers = [b"x" * (24 << 20) for _ in range(4)]
    del buffers
print(faults() - before)
"""
_CALL = "from sap_ros.allocation import reuse_freed_memory; reuse_freed_memory()"


def _page_faults(call):
    """How many pages the kernel maps anew for four raw 4K panoramas, after some rounds."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE.format(call)], capture_output=True, text=True
    )
    assert not done.stderr
    return int(done.stdout)


def test_buffers_of_raw_panoramas_are_used_again():
    if _page_faults("") < 1000:
        pytest.skip("this C library keeps freed memory by itself")
    assert _page_faults(_CALL) < 100
