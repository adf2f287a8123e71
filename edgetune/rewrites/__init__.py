"""Exact rewrites of an fp32 ONNX graph, which export and quantization share.

`simplify.simplify` is the way in: from a flat graph of any exporter to the form that runtimes fuse best, with the same numbers
within the rounding of float32. `simplify.integer_gates` is for graphs that are to be quantized only.

A rewrite is a function of a `Graph` (`graph`) that returns how many nodes it dealt with; each theme has a module. Tensors and
nodes that survive keep their names: where two nodes become one, it has the name of the layer and writes the last one's tensor.
"""
