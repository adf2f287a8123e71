"""Where models are measured: `interface.py` says what a target does, each other file is one way to reach one."""
