"""`python -m edgetune.device`: the runner without its zipapp."""

import sys

from .runner import main

sys.exit(main())
