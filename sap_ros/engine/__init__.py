"""The engine: events in, answers out, in the same way on a robot and in a replay. No ROS, no files.

:class:`~sap_ros.engine.engine.Engine` owns a session and everything that determines an object's identity:
ids, labels, kept images, prompts that wait for their image, and limits. One thread drives it.
:mod:`sap_ros.node` and :mod:`sap_ros.evaluation.replay` convert messages to its events and its answers to
messages.
"""
