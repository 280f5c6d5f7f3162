"""`sap bench`: time and memory, mostly relative to another method or a lower bound in the same run.

Each benchmark is a function that returns a :class:`sap_ros.bench.result.Result`: a table, goals, and raw
figures.
"""
