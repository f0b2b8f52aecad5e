"""Run the gateway: `python run.py --help` lists what can be asked for."""

from server.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
