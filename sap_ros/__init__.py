"""SAP: point at anything in a 360° panorama and keep it (Segment Any 4K Panorama, for ROS 2)."""

import os
from pkgutil import extend_path

# The source tree and the generated sap_ros.msg, sap_ros.srv may lie in two folders of one path.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"

# OpenMP's threads wait by spinning unless told otherwise before torch is imported. Beside another busy
# process, as on any robot, that made one object take 100 s in place of 10; alone, not to spin made
# following up to a third slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
