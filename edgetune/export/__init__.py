"""From a checkpoint to an ONNX file that keeps the contract: uint8 `[N, H, W, K]` `image` in, float32 `[N, C]` `logits` out.

`stage.export` is the way in. The network is wrapped so that its preprocessing is part of the graph and traced (`trace`), the
graph is rewritten into what runtimes fuse and given stable names (`rewrite`), and the file is compared with torch on real
images (`parity`). No timm here: the pipeline hands the trained network in.
"""
