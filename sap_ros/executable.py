"""The common start of the executables of `ros2 run`. Imports no other package, as some may be missing."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from sap_ros.missing import how_to_install

# Exit codes: 128 plus the number of SIGINT, as in a shell; any other failure.
INTERRUPTED, FAILED = 130, 1


def run(name: str, module: str) -> None:
    """Imports a module, which may take seconds, and runs its ``main``.

    Args:
        name: name of the executable, for the error message about a missing package.
        module: full name of the module.
    """
    # A KeyboardInterrupt during an import could be replaced by another exception in a compiled module.
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
