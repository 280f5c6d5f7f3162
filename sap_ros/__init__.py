"""SAP: point at anything in a 360° panorama and keep it (Segment Any 4K Panorama, for ROS 2)."""

from pkgutil import extend_path

# The source tree and the generated sap_ros.msg, sap_ros.srv may lie in two folders of one path.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
