"""ONNX Runtime's `quantize_static` behind its `quant_pre_process`: python ort_static.py FP32.onnx CALIBRATION.npy OUT.onnx."""

from __future__ import annotations

import argparse
from typing import Any

import onnx
from contract import Job, Reader, main
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


def quantize(job: Job, options: argparse.Namespace) -> onnx.ModelProto:
    """Return the quantized network: with the library's defaults, or what suits an x86 with VNNI."""
    prepared, written = job.scratch / "prepared.onnx", job.scratch / "int8.onnx"
    quant_pre_process(job.network, prepared, skip_symbolic_shape=True)
    settings: dict[str, Any] = {}
    if options.per_channel:
        settings = {
            "per_channel": True,
            "activation_type": QuantType.QUInt8,
            "weight_type": QuantType.QInt8,
            "calibrate_method": CalibrationMethod.MinMax,
        }
    quantize_static(prepared, written, Reader(job), **settings)
    return onnx.load(written)


if __name__ == "__main__":
    main("onnxruntime", quantize, per_channel="One scale per channel, uint8 activations, int8 weights, MinMax ranges.")
