"""What runs on the target device: stdlib, numpy and onnxruntime only, Python 3.8 or newer.

This package imports nothing else of edgetune and uses relative imports only, so that it runs unchanged from a zipapp
(``runner.pyz``) beside a bundle, where nothing of edgetune is installed. The host uses the same code wherever the host and
the board must not differ: decoding, resizing, opening a session, checking digests.
"""

RUNNER_VERSION = "0.1.0"
"""The version of edgetune that this package belongs to; a test holds the two together."""
