"""Stop for what was clicked: its points go to the collision monitor.

    ros2 launch sap_ros nav2_stop.launch.py image:=/camera/image_raw

Nav2's collision monitor is started beside the node and has to be activated by the robot's lifecycle
manager (`node_names: [collision_monitor]`). It passes `cmd_vel_smoothed` on as `cmd_vel`, and stops the
robot while one of the objects is within the zone.
"""

from launch import LaunchDescription
from sap_ros.launch_parts import nav2_example


def generate_launch_description() -> LaunchDescription:
    return nav2_example(
        "nav2_stop.yaml", "nav2_collision_monitor", "collision_monitor", "collision_monitor"
    )
