"""Keep what was clicked in the costmap: its points go to an obstacle layer.

    ros2 launch sap_ros nav2_costmap.launch.py image:=/camera/image_raw

The costmap is that of the robot's own Nav2: merge the layers of config/nav2_costmap.yaml into its
parameters.
"""

from launch import LaunchDescription
from sap_ros.launch_parts import nav2_example


def generate_launch_description() -> LaunchDescription:
    return nav2_example("nav2_costmap.yaml")
