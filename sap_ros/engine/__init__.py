"""Events in, answers out: the same for a robot, a recording and a click. No ROS, no files.

:class:`~sap_ros.engine.engine.Engine` owns a session and everything that an object's identity depends
on: ids, labels, the images that are kept, prompts that wait for their image, and limits. One thread
drives it. :mod:`sap_ros.node` and :mod:`sap_ros.evaluation.replay` turn messages into its events and
its answers into messages.
"""
