"""Technical indicators over arrays of candles: pure, arrays in, numbers out. The one place that imports TA-Lib.

Definitions are TA-Lib's, and its functions are described by itself; what it has not, or has otherwise, is beside it. A
value without enough candles before it is None, and so is one that is no finite number.
"""

from .asked import Asked, depth_for
from .catalogue import CATALOGUE, Description, catalogue
from .computing import Computed, compute
from .prices import CHARTS, SOURCES
from .query import Query, newest
from .questions import Question, parse_names

__all__ = [
    "CATALOGUE",
    "CHARTS",
    "SOURCES",
    "Asked",
    "Computed",
    "Description",
    "Query",
    "Question",
    "catalogue",
    "compute",
    "depth_for",
    "newest",
    "parse_names",
]
