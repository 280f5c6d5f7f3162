# source scripts/env.bash: this checkout's environment, with its messages if they are built.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$_root/.venv/bin/activate"
if [ -d "$_root/.venv/share/ament_index" ]; then # ROS 2 from wheels: the environment is its prefix
  export AMENT_PREFIX_PATH=$_root/.venv CMAKE_PREFIX_PATH=$_root/.venv ROS_DISTRO=jazzy
fi
if [ -f "$_root/install/local_setup.bash" ]; then
  source "$_root/install/local_setup.bash"
fi
unset _root
