#!/usr/bin/env bash
# Builds the package with colcon, in the environment that scripts/env.bash gives.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# CMake refuses to export include folders (numpy's, in .venv) inside the source folder, so the source is
# passed as a symbolic link.
mkdir -p log build/source
ln -sfn ../.. build/source/sap_ros
touch build/COLCON_IGNORE
if ! colcon --log-base log build --base-paths build/source/sap_ros \
  --symlink-install --event-handlers console_direct- --cmake-args \
  -DPython3_EXECUTABLE="$VIRTUAL_ENV/bin/python" -DPython3_FIND_VIRTUALENV=ONLY \
  >log/build.log 2>&1; then
  grep -m3 -iE "error" log/build.log >&2 || tail -3 log/build.log >&2
  echo "build: failed; the full output is in log/build.log" >&2
  exit 1
fi
echo "build: done; source scripts/env.bash to use it"
