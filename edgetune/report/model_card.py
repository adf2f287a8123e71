"""The bundle's README.md: what the model is, what it needs, what it achieves, how to run it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgetune.artefacts import OnnxModel, Preprocessing, Report
from edgetune.report.markdown import accuracy_table, latency_table
from edgetune.report.tasks import columns_in_words, described
from edgetune.report.words import bullets, cell, megabytes

__all__ = ["SNIPPET", "model_card", "preprocessing_in_words"]

MANY_CLASSES = 100

SNIPPET = """\
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

labels = json.loads(Path("labels.json").read_text(encoding="utf-8"))
session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
images = np.load("golden/tensors.npy")  # uint8 [N, H, W, 3], RGB: replace with your own
for logits in session.run(["logits"], {"image": images})[0]:
    print(labels[int(logits.argmax())], logits.max())
"""
"""Runs beside the bundle's files with numpy and onnxruntime alone; a test runs it. For RGB; `_snippet` is for all images."""
CPP_SNIPPET = """\
#include <onnxruntime_cxx_api.h>
#include <cstdio>
int main() {  // g++ -std=c++17 main.cc -lonnxruntime
  Ort::Env env; Ort::Session session(env, ORT_TSTR("current/model.onnx"), Ort::SessionOptions());
  std::vector<uint8_t> pixels({size}); std::vector<int64_t> shape{1, {shape}};  // rows from the top, {colour}
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto image = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
  const char *in[] = {"image"}, *out[] = {"logits"};
  auto logits = session.Run(Ort::RunOptions(), in, &image, 1, out, 1);
  for (int i = 0; i < {columns}; i++) std::printf("%d %f\\n", i, logits[0].GetTensorData<float>()[i]);
}
"""
"""The same in C++, from the link of an installed release; `{…}` are the model's own."""
RUST_SNIPPET = """\
use ort::{session::Session, value::Tensor};
fn main() -> Result<(), Box<dyn std::error::Error>> {  // Cargo.toml: ort = "=2.0.0-rc.10", serde_json = "1"
    let labels: Vec<String> = serde_json::from_str(&std::fs::read_to_string("current/labels.json")?)?;
    let mut session = Session::builder()?.commit_from_file("current/model.onnx")?;
    let pixels = vec![0u8; {size}];  // rows from the top, {colour}
    let image = Tensor::from_array(([1usize, {shape}], pixels))?;
    let outputs = session.run(ort::inputs!["image" => image])?;
    let (_, logits) = outputs["logits"].try_extract_tensor::<f32>()?;
    Ok(labels.iter().zip(logits).for_each(|(label, logit)| println!("{label} {logit}")))
}
"""
"""The same in Rust."""
TASKS_SNIPPET = """\
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

heads = json.loads(Path("manifest.json").read_text(encoding="utf-8"))["heads"]
ends = np.cumsum([len(head["columns"]) for head in heads])
session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
images = np.load("golden/tensors.npy")  # uint8 [N, H, W, 3], RGB: replace with your own
for logits in session.run(["logits"], {"image": images})[0]:
    for head, part in zip(heads, np.split(logits, ends[:-1])):
        names, likely = head["columns"], 1 / (1 + np.exp(-part))
        if head["kind"] == "single-label":
            print(head["name"], names[int(part.argmax())])
        elif head["kind"] == "multi-label":
            print(head["name"], [name for name, p, least in zip(names, likely, head["thresholds"]) if p >= least])
        else:
            print(head["name"], dict(zip(names, part.tolist())))
"""
"""The same for other tasks than a single label."""

RESIZE = {
    "crop": "the largest centred box of that shape is cut out ({percent:g} % of its sides) and resized",
    "pad": "the whole image is resized to fit and padded with white",
    "squash": "the whole image is resized, whatever its shape",
}
GIVEN = {
    1: "convert it to 8-bit grey (transparency on white; colours by the luma of ITU-R BT.601)",
    3: "convert it to 8-bit RGB (transparency on white)",
}


def preprocessing_in_words(preprocessing: Preprocessing) -> str:
    """Return what is done to an encoded image before the model sees it, for a person who must do the same."""
    how = RESIZE[preprocessing.resize].format(percent=100 * preprocessing.crop_fraction)
    size = f"{preprocessing.width} x {preprocessing.height} pixels (width x height)"
    channels = preprocessing.channels
    first = f"Take the image as an array, uint8 `[H, W, {channels}]` (an .npy file)"
    if channels in GIVEN:
        first = f"Turn the image upright by its EXIF orientation and {GIVEN[channels]}"
    return (
        f"{first}; then {how} to "
        f"{size}, {preprocessing.interpolation} with antialiasing as Pillow defines it. Nothing else: scaling, mean and "
        "standard deviation are inside the model."
    )


def _snippet(model: OnnxModel) -> list[str]:
    """Return the lines of the snippet for a model's tasks, and for images of other channels than RGB, too."""
    text, size = SNIPPET if model.is_classifier else TASKS_SNIPPET, model.preprocessing
    return text.replace("3], RGB", f"{size.channels}], {size.colour}").splitlines()


def _filled(text: str, model: OnnxModel) -> list[str]:
    """Return the lines of a snippet with the model's own numbers."""
    size = model.preprocessing
    numbers = {"size": math.prod(size.shape), "shape": ", ".join(map(str, size.shape)), "columns": len(model.classes)}
    for name, value in {**numbers, "colour": size.colour}.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text.splitlines()


def _purpose(model: OnnxModel) -> str:
    if model.is_classifier:
        return f"An image classifier for {len(model.classes)} classes"
    return f"A network that tells of an image {', '.join(cell(described(head)) for head in model.heads)}"


def _output(model: OnnxModel) -> list[str]:
    """Return what the logits mean, as bullets."""
    lead = f"- output `logits`: float32 `[N, {len(model.classes)}]`, ordered as `labels.json`"
    return [f"{lead}; the largest is the decision"] if model.is_classifier else [lead, *columns_in_words(model.heads)]


def model_card(report: Report, model: OnnxModel, *, provenance: Mapping[str, Any]) -> str:
    """Return the model card of a bundle as Markdown.

    Args:
        report: the judgement.
        model: the shipped file.
        provenance: what it was built from, as the manifest carries it.
    """
    size = model.preprocessing
    sections = {
        "": [
            f"{_purpose(model)}, {model.precision}, {megabytes(model.size_bytes)}, "
            f"built and checked by edgetune. Overall verdict: **{report.overall}**. "
            f"Why {model.precision}: {cell(report.shipped_reason)}.",
        ],
        "Warnings": [f"- {cell(text)}" for text in report.warnings],
        "Run it": [
            "With Python, numpy, onnxruntime and Pillow:",
            "",
            "```sh",
            f"python runner.pyz predict . image.{'jpg' if size.channels in GIVEN else 'npy'}",
            "```",
            "",
            "Or in a program of your own, with numpy and onnxruntime:",
            "",
            "```python",
            *_snippet(model),
            "```",
            "",
            "What `edgetune ship` installed is read through the link `current`: `current/model.onnx` and `current/labels.json`",
            "are all that a program needs. In C++, with ONNX Runtime's headers and library:",
            "",
            "```cpp",
            *_filled(CPP_SNIPPET, model),
            "```",
            "",
            "In Rust, with the crate `ort`:",
            "",
            "```rust",
            *_filled(RUST_SNIPPET, model),
            "```",
        ],
        "Contract": [
            f"- input `image`: uint8 `[N, {size.height}, {size.width}, {size.channels}]`, {size.colour}, 0 to 255",
            *_output(model),
            f"- ONNX opset {model.opset}, IR version {model.ir_version}",
            "- session options, digests of all files and figures: `manifest.json`",
        ],
        "Preprocessing": [
            preprocessing_in_words(size),
            "",
            "`golden/` holds encoded images, the tensors they must become, and the logits that must follow.",
        ],
        "Labels": [_labels(model)],
        "Accuracy on the test set": accuracy_table(report),
        "Latency at batch 1 and footprint": [*latency_table(report), "", f"Measured on {cell(report.where)}."],
        "Provenance": list(bullets(provenance)),
    }
    lines = [f"# {cell(report.title)}"]
    for title, content in sections.items():
        if content:
            lines += [*(["", f"## {title}"] if title else []), "", *content]
    return "\n".join(lines) + "\n"


def _labels(model: OnnxModel) -> str:
    if len(model.classes) > MANY_CLASSES:
        return f"{len(model.classes)} classes; see `labels.json`."
    return ", ".join(f"{index} {cell(name)}" for index, name in enumerate(model.classes))
