"""How a model uses a device: where its time goes, and which session options are faster.

`hotspots` joins a device's profile to the layers of the file. `search` tries `candidates` of session options and judges them,
which gives `trials`; `keeping` proves the best on the device and writes them down. `asking` is how all of them ask a device.
"""
