"""AIMET's post-training quantization for ONNX: python aimet_ptq.py FP32.onnx CALIBRATION.npy OUT.onnx."""

from __future__ import annotations

import argparse

import onnx
from aimet_onnx import QuantizationSimModel
from aimet_onnx.cross_layer_equalization import equalize_model
from contract import Job, main


def quantize(job: Job, options: argparse.Namespace) -> onnx.ModelProto:
    """Return the quantized network, calibrated with the library's defaults and written with integer weights and biases."""
    network = onnx.load(job.network)
    if options.equalize:
        equalize_model(network)
    sim = QuantizationSimModel(network, quant_scheme="tf_enhanced" if options.tf_enhanced else "min_max")
    sim.compute_encodings(list(job.feeds()))
    model: onnx.ModelProto = sim.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True)
    return model


if __name__ == "__main__":
    main(
        "aimet-onnx",
        quantize,
        equalize="Cross-layer equalisation first.",
        tf_enhanced="Ranges with the best signal-to-noise ratio instead of the extremes.",
    )
