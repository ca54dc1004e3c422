"""`python -m vosarena` is the command `vosarena`."""

import sys

from vosarena.cli import main

sys.exit(main())
