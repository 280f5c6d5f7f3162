"""`sap bench`: what speed and memory cost, as ratios against a peer or a bound in the same run.

Each benchmark is a function that gives a :class:`sap_ros.bench.result.Result`: a table, its goals, and the
raw figures.
"""
