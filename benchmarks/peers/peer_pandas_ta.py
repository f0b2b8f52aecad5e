"""What computing.py does, by pandas-ta-classic: FILE with the klines, and `talib` where it may use TA-Lib."""

import json
import sys
from pathlib import Path

import pandas as pd
from frames import all_names, classic, everything, framed, some
from rounds import obey

rows = json.loads(Path(sys.argv[1]).read_bytes())
talib = sys.argv[2:] == ["talib"]
frame, names = framed(rows), all_names(framed(rows))
earlier = frame.iloc[:-1]


def grown() -> pd.DataFrame:
    return pd.concat([earlier, framed(rows[-1:])], ignore_index=True)


obey(
    {
        "classic": lambda: json.dumps(classic(frame, talib)),
        "some": lambda: json.dumps(some(frame, talib)),
        "all": lambda: json.dumps(everything(frame, names)),
        "new": lambda: json.dumps(classic(grown(), talib)),
        "rows": lambda: json.dumps(classic(framed(rows), talib)),
    },
    {"all": len(names)},
)
