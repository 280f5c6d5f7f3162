"""The web page: click on objects of a live camera, or label a folder of panoramas, in a browser.

:mod:`~sap_ros.web.server` serves the files in ``page/`` and a WebSocket for each open page. It uses one of
two back ends: :mod:`~sap_ros.web.stills` has a session in the same process, :mod:`~sap_ros.web.live` has no
model and uses the node over ROS 2. Both handle the commands of :mod:`~sap_ros.web.commands` and send images,
masks and state to the pages through :mod:`~sap_ros.web.viewers`.
"""
