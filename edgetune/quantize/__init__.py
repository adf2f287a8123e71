"""From an fp32 ONNX classifier and images to an int8 one: no checkpoint, and no torch where nothing is learnt.

`stage.quantize` is the way in, `ladder` what it climbs: rungs from the cheapest to the dearest, each kept only if it brings
held-out images (`heldout`, drawn by `samples`) nearer to fp32. A `QuantGraph` (`graph`) is an fp32 model and how it is to be
quantized; each step takes one and returns one: `equalise` scales channels, `calibrate` gives activations their ranges (from a
`histogram`, as `ranges` chooses), `weights` rounds the weights, `bias` corrects biases, `mixed` leaves layers in float (by
`sensitivity` and `timing`), `reconstruct` learns the graph segment by segment (`segments`), `qat` as a whole. What is learnt
is a `torchgraph`: the integers simulated (`fakequant`) between operators in torch (`operators`). `prepare` makes the first
value of any ONNX classifier, `placement` writes the last one in QDQ form; `proof` reads back from ONNX Runtime's own
`optimised` graph what really runs in integers, and `blame` where the time goes.
"""
