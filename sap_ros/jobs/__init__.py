"""Runs one function over many items: in this process, in several, or on a Ray cluster.

A command says what a worker is (:class:`~sap_ros.jobs.run.Job`) and which items there are; :func:`~sap_ros.jobs.run.run`
passes the items to a pool of workers. Items are taken from an iterator as workers become free, so there may be
any number of them. Each worker is made once and keeps what it has loaded, such as a model.

An item whose worker dies is given to another one; an item that raises is named in the summary, and the others
go on. The same command given again does what is missing, if the items' results are files that are renamed into
place when they are complete.
"""
