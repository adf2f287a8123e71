"""onnx-neural-compressor's static quantization: python inc_ptq.py FP32.onnx CALIBRATION.npy OUT.onnx."""

from __future__ import annotations

import argparse

import onnx
from contract import Job, Reader, main
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import QuantFormat, QuantType, config
from onnx_neural_compressor.quantization import quantize as compress


class _Images(Reader, data_reader.CalibrationDataReader):  # type: ignore[misc]
    """The library asks for a reader of its own class."""


def quantize(job: Job, options: argparse.Namespace) -> onnx.ModelProto:
    """Return the quantized network: one scale per channel, uint8 activations, int8 weights."""
    written = job.scratch / "int8.onnx"
    settings = config.StaticQuantConfig(
        calibration_data_reader=_Images(job),
        quant_format=QuantFormat.QDQ if options.qdq else QuantFormat.QOperator,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibration_sampling_size=len(job.images),
    )
    compress(str(job.network), str(written), settings)
    return onnx.load(written)


if __name__ == "__main__":
    main("onnx-neural-compressor", quantize, qdq="Write QDQ pairs instead of integer operators.")
