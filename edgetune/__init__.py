"""edgetune: from a folder of labelled images to an ONNX file that can be trusted on a board."""

__version__ = "0.1.0"
