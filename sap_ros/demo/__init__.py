"""The demo: the node as a process of its own, and a driver and a person around it, over DDS."""
