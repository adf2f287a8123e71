"""NNCF's post-training quantization on its ONNX backend: python nncf_ptq.py FP32.onnx CALIBRATION.npy OUT.onnx."""

from __future__ import annotations

import argparse

import nncf
import onnx
from contract import Job, main


def quantize(job: Job, options: argparse.Namespace) -> onnx.ModelProto:
    """Return the quantized network, with the library's defaults but for the way of correcting biases."""
    images = nncf.Dataset(list(job.feeds()))
    model: onnx.ModelProto = nncf.quantize(
        onnx.load(job.network), images, subset_size=len(job.images), fast_bias_correction=not options.full_bias_correction
    )
    return model


if __name__ == "__main__":
    main("nncf", quantize, full_bias_correction="Correct biases one layer after the other instead of all at once.")
