"""A classifier of any exporter, brought to the contract: `image` uint8 `[N, H, W, K]` in, `logits` float32 `[N, C]` out.

Only what stands before and behind the graph is changed, and the size of its batch. What is inside is left to the rewrites that
all graphs go through before they are quantized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.outside.batch import open_batch

if TYPE_CHECKING:
    import onnx

    from edgetune.outside.given import Pixels
    from edgetune.outside.reading import ModelFile
    from edgetune.profile import ModelCaps

__all__ = ["only_logits", "with_contract"]

IMAGE, LOGITS = "image", "logits"
NORMALISERS = ("Softmax", "LogSoftmax")
"""What turns logits into probabilities: the order of the classes is the same before and behind it."""


def only_logits(file: ModelFile) -> tuple[onnx.ModelProto, str]:
    """Return a file's graph as it stands, as far as its logits: its own input, and `logits` as the only output.

    Returns:
        The graph, and the operator that made probabilities of the logits and is left out; empty if there was none.
    """
    import onnx
    from onnx import TensorProto, helper
    from onnx.inliner import inline_local_functions

    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    if model.functions:
        model = inline_local_functions(model)
    graph = model.graph
    last, removed = _before_softmax(graph, file.output)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    kept = _living(graph, last)
    for field, values in ((graph.node, kept), (graph.input, inputs)):
        del field[:]
        field.extend(values)
    used = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    batch = file.image.batch or "N"
    del graph.output[:], graph.value_info[:]
    _rename(graph, last, LOGITS)
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [batch, file.columns]))
    _bare(model)
    return model, removed


def _before_softmax(graph: onnx.GraphProto, name: str) -> tuple[str, str]:
    """Return the tensor of logits that an output comes from, and the operator between them."""
    producers = {output: node for node in graph.node for output in node.output}
    start = name
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    if name in producers and producers[name].op_type in NORMALISERS:
        return producers[name].input[0], producers[name].op_type
    return start, ""


def _living(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """Return the nodes that an output depends on, in order."""
    wanted, kept = {output}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name; one that has that name already makes way."""
    if old == new:
        return
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    way = f"{new}.given"
    while way in names:
        way += "_"
    table = {old: new, new: way}
    for node in graph.node:
        node.input[:] = [table.get(name, name) for name in node.input]
        node.output[:] = [table.get(name, name) for name in node.output]
    for item in [*graph.input, *graph.initializer]:
        item.name = table.get(item.name, item.name)


def _bare(model: onnx.ModelProto) -> None:
    """Remove what tells of the machine and the person that exported the file: source lines, paths, stack traces."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "graph"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


def with_contract(
    logits: onnx.ModelProto, file: ModelFile, pixels: Pixels | None, caps: ModelCaps
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Return a graph with its batch opened and the contract's entry in front, as export writes it.

    Args:
        logits: of `only_logits`; it is not changed.
        file: where it came from.
        pixels: what the graph expects of a byte; None for a graph that takes the bytes themselves.
        caps: the newest file format that the target reads.

    Returns:
        The graph, and what was done.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.ModelProto()
    model.CopyFrom(logits)
    graph, image = model.graph, file.image
    steps: list[dict[str, Any]] = []
    if image.batch is not None:
        steps.append({"step": "fixed batch opened", "was": image.batch, "nodes": open_batch(model)})
    # From here on the name belongs to the bytes.
    _rename(graph, IMAGE, f"{IMAGE}.normalised")
    inner = graph.input[0].name
    entry = _entry(graph, file, pixels, inner)
    if entry:
        nodes = [*entry, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    else:
        _rename(graph, inner, IMAGE)
    shape: list[int | str | None] = ["N", image.height, image.width, image.channels]
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["N", file.columns]))
    steps.append({"step": "entry from bytes", "nodes": len(entry), **(pixels.to_json() if pixels else {})})
    # A newer version of the format alone must not keep an older runtime from reading the file.
    oldest = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(oldest, min(model.ir_version, caps.ir_version))
    return model, steps


def _entry(graph: onnx.GraphProto, file: ModelFile, pixels: Pixels | None, inner: str) -> list[onnx.NodeProto]:
    """Return the nodes from `image` to the graph's own input: Transpose, Cast, Mul, Sub, and back to its layout."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nchw = file.image.layout == "NCHW"
    chain: list[tuple[str, list[str], dict[str, Any]]] = []
    if pixels is not None or nchw:
        chain.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if pixels is not None:
        deviation = np.array(pixels.std, np.float64).reshape(1, -1, 1, 1)
        scale = (1.0 / (255.0 * deviation)).astype(np.float32)
        shift = (np.array(pixels.mean, np.float64).reshape(1, -1, 1, 1) / deviation).astype(np.float32)
        for name, value in (("entry.scale", scale), ("entry.shift", shift)):
            graph.initializer.append(numpy_helper.from_array(value, name))
        chain += [("Cast", [], {"to": TensorProto.FLOAT}), ("Mul", ["entry.scale"], {}), ("Sub", ["entry.shift"], {})]
        chain += [] if nchw else [("Transpose", [], {"perm": [0, 2, 3, 1]})]
    nodes, name = [], IMAGE
    for number, (operator, constants, attributes) in enumerate(chain, start=1):
        target = inner if number == len(chain) else f"entry.{operator.lower()}.out"
        node = helper.make_node(operator, [name, *constants], [target], name=f"entry.{operator.lower()}_{number}", **attributes)
        nodes.append(node)
        name = target
    return nodes
