# The node with ROS 2:
#
#   docker build -t sap_ros .                                    # or --build-arg ROS_DISTRO=humble
#   docker run --net=host sap_ros                                # the node; topics as in README.md
#   docker run --net=host sap_ros ros2 launch sap_ros sap.launch.py image:=/camera/image_raw
#
# With --ipc=host, and FASTRTPS_DEFAULT_PROFILES_FILE set as in README.md, images go through shared memory.
#
# With a GPU: --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu126, and docker run --gpus all.
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}
ARG TORCH_INDEX_URL
WORKDIR /opt/sap_ros
COPY . .
# The entry point of the image sources ROS 2.
SHELL ["/ros_entrypoint.sh", "bash", "-c"]
RUN scripts/setup.sh core
RUN scripts/setup.sh ros
RUN source scripts/env.bash && scripts/build.sh
ENTRYPOINT ["/ros_entrypoint.sh", "bash", "-c", "source scripts/env.bash && exec \"$@\"", "sap_ros"]
CMD ["ros2", "launch", "sap_ros", "sap.launch.py"]
