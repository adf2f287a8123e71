"""Which operator sets are worked with, and how older files get there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.errors import Fault, GraphError

if TYPE_CHECKING:
    import onnx

__all__ = ["NEWEST_OPSET", "OLDEST_OPSET", "at_least"]

# The first operator set whose DequantizeLinear takes one scale per channel. From this one to the newest, ONNX Runtime 1.32
# gives our QDQ graphs the same integer operators: tests/rewrites/test_opset.py.
OLDEST_OPSET = 13
NEWEST_OPSET = 25


def at_least(model: onnx.ModelProto, oldest: int = OLDEST_OPSET) -> tuple[onnx.ModelProto, str]:
    """Return a model of an operator set that is not older than `oldest`, and what was done; the model itself if nothing was.

    The IR version is raised to what belongs to the operator set, never lowered.

    Raises:
        GraphError: the operator set is too new, is not said, or an operator cannot be converted.
    """
    import onnx
    from onnx import helper

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not 0 < opset <= NEWEST_OPSET:
        raise GraphError(
            f"the model has opset {opset}" if opset else "the model does not say its opset",
            faults=[Fault(where="opset_import", problem="cannot be read", expected=f"opset 11 to {NEWEST_OPSET}")],
            remedy=f"export the model again with opset {OLDEST_OPSET} to {NEWEST_OPSET}",
        )
    least_ir = helper.find_min_ir_version_for([helper.make_opsetid("", max(opset, oldest))])
    if opset >= oldest and model.ir_version >= least_ir:
        return model, ""
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    converted.ir_version = max(model.ir_version, least_ir)
    if opset >= oldest:
        return converted, f"IR version raised from {model.ir_version} to {converted.ir_version}"
    try:
        converted = onnx.version_converter.convert_version(converted, oldest)
    except Exception as failure:  # The converter throws whatever its C++ assertions are bound to.
        reason = str(failure).strip().splitlines() or [type(failure).__name__]
        raise GraphError(
            f"the model has opset {opset}, and cannot be converted to {oldest}, the oldest that is quantized",
            faults=[Fault(where=f"opset {opset}", problem=reason[-1][:300])],
            remedy=f"export the model again with opset {oldest} to {NEWEST_OPSET}",
        ) from failure
    converted.ir_version = max(model.ir_version, least_ir)
    return converted, f"converted from opset {opset} to {oldest}"
