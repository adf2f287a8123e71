from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_importing_verify_needs_no_heavy_import():
    code = (
        "import sys, edgetune.verify.judge, edgetune.verify.stage, edgetune.verify.metrics, edgetune.verify.limits;"
        "heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'sklearn', 'scipy', 'PIL', 'rich'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    checkout = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
