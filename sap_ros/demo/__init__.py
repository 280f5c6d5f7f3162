"""The demo: the node as a separate process, and a client that sends images and clicks over DDS."""
