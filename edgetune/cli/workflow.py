"""`edgetune init ci`: a GitHub workflow that stops a pull request whose model got worse."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT", "workflow"]

DEFAULT = Path(".github/workflows/edgetune.yml")

TEMPLATE = """\
# Written by `edgetune init ci`. Stops a pull request whose model is worse than that of the branch it goes to.
#
# Both are built and run on the same machine, one after the other, so that times can be compared as well. Where building the
# baseline each time is too slow, commit what was accepted, `edgetune baseline set runs/candidate`, and compare with the file
# edgetune-baseline.json instead of runs/baseline: accuracy is judged image by image, latency is left out and said to be.
#
# Exit codes of `edgetune compare`: 0 not worse; 10 worse; 11 with --strict, where not everything could be confirmed.
name: edgetune

on:
  pull_request:

permissions:
  contents: read

jobs:
  gate:
    runs-on: ubuntu-latest
    timeout-minutes: 120
    steps:
      - uses: actions/checkout@v4
        with:
          path: candidate
      - uses: actions/checkout@v4
        with:
          ref: ${{ github.base_ref }}
          path: baseline
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: Install
        run: |
          pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu
          pip install edgetune
      # A build goes on where an earlier one with the same inputs stopped.
      - uses: actions/cache@v4
        with:
          path: runs/baseline
          key: edgetune-${{ github.event.pull_request.base.sha }}
          restore-keys: edgetune-
      - name: Build the baseline
        run: edgetune build @RECIPE@ --output "$GITHUB_WORKSPACE/runs/baseline"@TARGET@
        working-directory: baseline
      - name: Build the candidate
        run: edgetune build @RECIPE@ --output "$GITHUB_WORKSPACE/runs/candidate"@TARGET@
        working-directory: candidate
      - name: Compare
        run: edgetune compare runs/baseline runs/candidate --github --output report
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: edgetune-report
          path: report
          if-no-files-found: ignore
"""


def workflow(recipe: str, target: str | None) -> str:
    """Return the workflow.

    Args:
        recipe: the recipe's path in the repository.
        target: the board, where it is not the recipe's.
    """
    return TEMPLATE.replace("@RECIPE@", recipe).replace("@TARGET@", f" --target {target}" if target else "")
