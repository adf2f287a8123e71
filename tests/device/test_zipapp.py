"""The zipapp on a Python that holds only numpy and onnxruntime, and what the package may import."""

from __future__ import annotations

import ast
import errno
import json
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import edgetune
from edgetune.device import RUNNER_VERSION
from edgetune.device.archive import write_runner
from edgetune.device.digest import sha256_file
from edgetune.device.runner import main

PACKAGE = Path(edgetune.__file__).parent / "device"
MODULES = sorted(PACKAGE.rglob("*.py"))
THIRD_PARTIES = {"numpy", "onnxruntime", "PIL"}


def test_the_device_has_nothing_but_numpy_and_onnxruntime(device_python: Path, tmp_path: Path) -> None:
    absent = ("PIL", "onnx", "torch", "pydantic", "edgetune")
    code = f"import numpy, onnxruntime, importlib.util as u; print([n for n in {absent} if u.find_spec(n)])"
    done = subprocess.run([device_python, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[]\n"


def test_measure_on_a_bare_device(device, model: Path, bundle: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", pictures)
    twice = [{"name": name, "path": str(model), "sha256": sha256_file(model)} for name in ("fp32", "int8")]
    request = {
        "schema": 1,
        "models": twice,
        "session": {"providers": ["CPUExecutionProvider"]},
        "eval": {"images": str(tmp_path / "images.npy"), "limit": 5},
        "latency": {"warmup": 2, "rounds": 4, "queries_per_round": 3},
        "footprint": True,
        "golden": str(bundle / "golden"),
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    done = device.run("measure", tmp_path / "request.json", "--out", tmp_path / "out", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out' / 'measurement.json'}\n"), done.stderr
    result = json.loads((tmp_path / "out/measurement.json").read_text())
    assert result["schema"] == 1
    assert result["runner"] == RUNNER_VERSION
    assert result["environment"]["onnxruntime"]
    assert set(result["environment_after"]) <= set(result["environment"])
    for name in ("fp32", "int8"):
        facts = result["models"][name]
        assert facts["providers"] == ["CPUExecutionProvider"]
        assert (facts["classes"], facts["eval"]["images"], facts["latency"]["queries"]) == (3, 5, 12)
        assert facts["footprint"]["peak_memory_bytes"] > 0
        assert np.load(tmp_path / f"out/logits-{name}.npy").shape == (5, 3)
    assert result["golden"]["model"] == "int8"
    assert result["golden"]["decode"]["status"] == "skipped"


def test_check_on_a_bare_device(device, bundle: Path, tmp_path: Path) -> None:
    done = device.run("check", bundle, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["golden"]["logits"]["top1_changed"] == 0
    assert result["golden"]["decode"]["reason"].startswith("images cannot be decoded here: PIL is not installed")
    assert result["models"]["shipped"]["footprint"]["cold_start_ms"] > 0


def test_the_runner_inside_a_bundle_checks_it_from_there(device, bundle: Path) -> None:
    inside = type(device)(device.python, Path("runner.pyz"))
    done = inside.run("check", ".", "--quick", folder=bundle)
    assert done.returncode == 0, done.stderr
    assert inside.run("verify", ".", folder=bundle).stdout == ".: all 8 files are as built\n"


def test_predict_without_pillow_says_what_to_install(device, bundle: Path, tmp_path: Path) -> None:
    done = device.run("predict", bundle, bundle / "golden/00.png", folder=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "images cannot be decoded here: PIL is not installed; try: pip install pillow\n"


@pytest.mark.parametrize("command", ["verify", "check"])
def test_a_changed_bundle_is_exit_4_and_one_line_that_names_the_file(
    device, bundle: Path, tmp_path: Path, command: str
) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[100] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    done = device.run(command, bundle, folder=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[-1].endswith("fetch it again: model.onnx was changed")


@pytest.mark.parametrize("name", ["info", "environment"])
def test_info_is_json(device, tmp_path: Path, name: str) -> None:
    done = device.run(name, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["runner"] == RUNNER_VERSION


def test_a_wrong_command_line_is_exit_2(device, tmp_path: Path) -> None:
    assert device.run(folder=tmp_path).returncode == 2
    assert device.run("predict", "x", "y", "--top", "0", folder=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "No space left on device: /data/x"),
        (MemoryError(), "killed for memory"),
    ],
)
def test_what_a_board_refuses_is_exit_3_and_one_sentence(monkeypatch, capsys, fault: BaseException, said: str) -> None:
    def refuse() -> None:
        raise fault

    monkeypatch.setattr("edgetune.device.environment.environment", refuse)
    assert main(["info"]) == 3
    assert capsys.readouterr().err.startswith(said)


def test_help_needs_neither_numpy_nor_onnxruntime(runner: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-IS", str(runner), "--help"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert "Verify, run and measure an edgetune bundle" in done.stdout


def test_without_numpy_the_error_says_what_to_install(runner: Path, bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(runner), "predict", str(bundle), str(bundle / "golden" / "00.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "pip install numpy onnxruntime" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_onnxruntime_the_error_says_so(runner: Path, bundle: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-IS", str(runner), "info"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert json.loads(done.stdout)["onnxruntime"] is None


def test_the_zipapp_is_the_same_bytes_each_time(runner: Path, tmp_path: Path) -> None:
    write_runner(tmp_path / "again.pyz")
    assert (tmp_path / "again.pyz").read_bytes() == runner.read_bytes()
    assert runner.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert stat.S_IMODE(runner.stat().st_mode) == 0o755
    with zipfile.ZipFile(runner) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == sorted(names)
        assert "edgetune_device/runner.py" in names
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_version_is_edgetunes() -> None:
    assert edgetune.__version__ == RUNNER_VERSION


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_is_python_3_8_and_imports_nothing_foreign(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots = {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots = {str(node.module).split(".")[0]}
        else:
            assert not isinstance(node, ast.ImportFrom) or node.level <= len(module.relative_to(PACKAGE).parts)
            continue
        assert roots <= sys.stdlib_module_names | THIRD_PARTIES, f"line {node.lineno}"


def test_importing_the_light_modules_loads_no_numpy() -> None:
    light = ("environment", "exitcodes", "digest", "preprocess", "decode", "resample", "bundle", "request", "runner", "archive")
    lines = [f"import edgetune.device.{name}" for name in light]
    lines += ["import sys", "assert not {'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, cwd=PACKAGE.parent.parent)


def python_3_8() -> str | None:
    """Return an interpreter of the oldest Python that boards have, if this machine has one that starts."""
    candidates = [shutil.which("python3.8"), *map(str, Path.home().glob(".pyenv/versions/3.8*/bin/python3.8"))]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def test_python_3_8_compiles_and_starts_it(runner: Path, tmp_path: Path) -> None:
    python = python_3_8()
    if python is None:
        pytest.skip("there is no python3.8 here")
    shutil.copytree(PACKAGE, tmp_path / "device", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([python, "-W", "error", "-m", "compileall", "-q", str(tmp_path / "device")], check=True)
    for command in ("info", "--help"):
        subprocess.run([python, "-IS", str(runner), command], check=True, capture_output=True)
