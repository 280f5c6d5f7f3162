"""What the executables of `ros2 run` have in common. Imports nothing else: it runs before packages are there."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from sap_ros.missing import how_to_install

# Exit codes: 128 plus the number of SIGINT, as a shell gives it; and for any other failure.
INTERRUPTED, FAILED = 130, 1


def run(name: str, module: str) -> None:
    """Imports a module, which may take seconds, and runs its ``main``.

    Args:
        name: of the executable, for what is said of a missing package.
        module: full name.
    """
    # An exception would come out of whatever is being imported, and compiled modules turn it into others.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        print(f"{name}: {how_to_install(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
