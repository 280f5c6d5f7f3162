"""The web page: click on objects of a live camera, or label a folder of panoramas, in a browser.

:mod:`~sap_ros.web.server` serves the page of ``page/`` and one WebSocket for each page that is open.
Behind it stands one of two back ends: :mod:`~sap_ros.web.stills` has a session in its own process,
:mod:`~sap_ros.web.live` holds no model and talks to the node over ROS 2. Both take the commands of
:mod:`~sap_ros.web.commands` and show what they have through :mod:`~sap_ros.web.viewers`.
"""
