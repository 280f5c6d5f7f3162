"""Follow a clicked person: the node's `pose` is what FollowObject takes.

    ros2 launch sap_ros nav2_follow.launch.py image:=/camera/image_raw

Nav2's following server is started beside the node and has to be activated by the robot's lifecycle
manager (`node_names: [following_server]`). Then, once something was clicked:

    ros2 action send_goal /follow_object nav2_msgs/action/FollowObject "{pose_topic: /sap/pose}"
"""

from launch import LaunchDescription
from sap_ros.launch_parts import nav2_example


def generate_launch_description() -> LaunchDescription:
    return nav2_example(
        "nav2_follow.yaml", "opennav_following", "opennav_following", "following_server"
    )
