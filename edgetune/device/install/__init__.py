"""Installing releases: received, verified, tried, kept or taken back, by the device's own runner and the standard library.

A product has a folder of its own on the device::

    PRODUCT/  device.json  allowed_signers  revoked_keys  runner.pyz      what `setup` put there
              lock  timer.lock  state.json  log.jsonl
              current -> releases/42-ab12cd34ef56
              incoming/MANIFEST_SHA256/  releases/COUNTER-SHA12/

States: RECEIVING, VERIFIED, INSTALLED, TRYING, then COMMITTED, ROLLED_BACK or FAILED. `begin` verifies a signed manifest before
anything is placed and says which files are needed; `activate` checks them, renames the folder, runs the golden images, starts a
timer, switches the link and judges; `confirm` keeps what the host has seen to be healthy. Whatever dies on the way, the timer
or the next command takes the release back: the link first, then the state.
"""
