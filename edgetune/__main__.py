"""`python -m edgetune` is `edgetune`."""

import sys

from edgetune.cli.main import main

sys.exit(main())
