"""`python -m edgetune` is `edgetune`."""

from edgetune.cli.main import program

program()
