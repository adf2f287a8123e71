"""How a model uses a device: where its time goes, and which session options are faster.

`hotspots` joins a device's profile to the layers of the file. `asking` is how both ask a device.
"""
