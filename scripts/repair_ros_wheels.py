"""Points the CMake files of the ROS 2 wheels at this environment's Python and numpy.

The wheels' exported targets contain include folders of the machine on which they were built; CMake fails if
a folder does not exist. Each such path is replaced by that of this interpreter.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy

_NUMPY = re.compile(r"/opt/python/[^;\"\s]*/numpy/_?core/include")
_PYTHON = re.compile(r"/opt/python/[^;\"\s]*/include/python3\.\d+")


def main() -> None:
    repaired = 0
    for path in Path(sys.prefix, "share").glob("*/cmake/*.cmake"):
        text = path.read_text()
        new = _NUMPY.sub(numpy.get_include(), text)
        new = _PYTHON.sub(sysconfig.get_paths()["include"], new)
        if new != text:
            path.write_text(new)
            repaired += 1
    print(f"setup: repaired the paths of {repaired} CMake files")


if __name__ == "__main__":
    main()
