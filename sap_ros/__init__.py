"""SAP: point at anything in a 360° panorama and keep it (Segment Any 4K Panorama, for ROS 2)."""

import os
from pkgutil import extend_path

# The source tree and the generated sap_ros.msg, sap_ros.srv may lie in two folders of one path.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"

# OpenMP's threads wait by spinning unless told otherwise before torch is imported. Two processes on two
# cores, as on any robot, then take 25 times as long for a view; alone, 15 images a second become 18.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
