"""`python -m server.market.indicators` writes the page of all indicators to its output."""

import sys

from .page import page

sys.stdout.write(page())
