"""Other tasks than one class per image, from a manifest to a checked bundle, on pictures whose answer is known."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetune.cli.main import main

SIDE, IMAGES = 32, 300
COLOURS = {"red": (0, 0.25), "green": (1, 0.5), "blue": (2, 0.75)}
"""Per colour, its channel and the height, as a part of the side, at which its disc lies."""
NOISE_MM = 1.0
"""What a ruler gets wrong: no network can know it, nor can quantization lose it."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Picture:
    """What is to be seen: discs by colour with their diameters in millimetres, 1 mm to a pixel."""

    discs: dict[str, float]

    def draw(self, random: np.random.Generator) -> np.ndarray:
        image = random.integers(70, 120, (SIDE, SIDE, 3)).astype(np.uint8)
        y, x = np.mgrid[:SIDE, :SIDE]
        for colour, diameter in self.discs.items():
            channel, height = COLOURS[colour]
            centre = SIDE * height, random.uniform(0.3, 0.7) * SIDE
            image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < diameter**2 / 4, channel] = 250
        return image


def write_manifest(folder: Path, header: list[str], row_of: object) -> Path:
    random = np.random.default_rng(3)
    folder.mkdir()
    with (folder / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *header])
        for number in range(IMAGES):
            picture, cells = row_of(random, number)  # type: ignore[operator]
            Image.fromarray(picture.draw(random)).save(folder / f"{number:04}.png")
            table.writerow([f"{number:04}.png", *cells])
    return folder / "images.csv"


def built(manifest: Path, output: Path, *settings: str) -> dict[str, object]:
    common = (
        "data.image_size=32",
        "verify.test_images=all",
        "watch.tensorboard=false",
    )
    arguments = [part for setting in (*common, *settings) for part in ("--set", setting)]
    assert main(["build", "--data", str(manifest), "--output", str(output), *arguments]) == 0
    report: dict[str, object] = json.loads((output / "report.json").read_text())
    return report


def figures(report: dict[str, object], head: str) -> dict[str, float]:
    shipped = report["figures"][report["shipped"]]  # type: ignore[index]
    return shipped["heads"][head]  # type: ignore[no-any-return]


def checked(output: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["check", str(output), "--data", str(manifest), "--quick"]) == 0
    return capsys.readouterr().out


def test_several_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(random: np.random.Generator, _number: int) -> tuple[Picture, list[str]]:
        shown = [colour for colour in COLOURS if random.random() < 0.5]
        return Picture({colour: random.uniform(6, 8) for colour in shown}), ["|".join(shown) or "|"]

    manifest = write_manifest(tmp_path / "images", ["discs"], row)
    report = built(manifest, tmp_path / "run", "tasks.discs.kind=multi-label")
    assert figures(report, "discs")["map_percent"] > 98
    assert figures(report, "discs")["exact_percent"] > 90
    assert "BROKEN" not in checked(tmp_path / "run", manifest, capsys)
    assert main(["predict", str(tmp_path / "run"), str(manifest.parent / "0000.png")]) == 0
    assert (tmp_path / "run" / "pictures" / "train-curves.png").is_file()


def test_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(random: np.random.Generator, _number: int) -> tuple[Picture, list[str]]:
        diameter = random.uniform(4, 20)
        return Picture({"green": diameter}), [f"{diameter + random.normal(0, NOISE_MM):.2f}"]

    manifest = write_manifest(tmp_path / "images", ["diameter"], row)
    report = built(manifest, tmp_path / "run", "tasks.diameter.kind=regression")
    value = figures(report, "diameter")["per_value"]["diameter"]  # type: ignore[index]
    assert value["rmse"] < 1.5 * NOISE_MM
    assert value["r2"] > 0.9
    assert "BROKEN" not in checked(tmp_path / "run", manifest, capsys)
    assert list((tmp_path / "run" / "pictures").glob("regression*.png"))


def test_two_heads_that_are_not_always_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(random: np.random.Generator, number: int) -> tuple[Picture, list[str]]:
        colour, diameter = list(COLOURS)[number % 3], random.uniform(4, 14)
        measured = f"{diameter + random.normal(0, NOISE_MM):.2f}" if number % 4 else ""
        return Picture({colour: diameter}), [colour if number % 5 else "", measured if number % 5 else measured or "10"]

    manifest = write_manifest(tmp_path / "images", ["colour", "diameter"], row)
    report = built(manifest, tmp_path / "run", "tasks.colour.kind=single-label", "tasks.diameter.kind=regression")
    assert figures(report, "colour")["top1_percent"] > 93
    assert figures(report, "diameter")["per_value"]["diameter"]["r2"] > 0.75  # type: ignore[index]
    assert "BROKEN" not in checked(tmp_path / "run", manifest, capsys)
    assert (tmp_path / "run" / "pictures" / "confusion-colour.png").is_file()
