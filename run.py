"""Run the gateway: `python run.py --help` lists what can be asked for."""

import sys

try:
    from server.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: `make run` installs what is needed into .venv; then `. .venv/bin/activate` finds it")

if __name__ == "__main__":
    raise SystemExit(main())
