"""From an fp32 ONNX classifier and images to an int8 one: no torch, no checkpoint.

`stage.quantize` is the way in. A `QuantGraph` (`graph`) is an fp32 model and how it is to be quantized; each step takes one
and returns one: `calibrate` gives activations their ranges, `weights` rounds the weights, `bias` corrects biases. Later steps
(reconstruction, quantization-aware training, mixed precision) fit in the same way. `prepare` makes the first value of any ONNX
classifier, `placement` writes the last one in QDQ form, and `proof` reads back from ONNX Runtime's own optimised graph what
really runs in integers.
"""
