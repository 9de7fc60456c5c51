"""``python -m lossift`` and the ``lossift`` command."""

import sys


def main() -> int:
    """Runs the command line and returns its exit code."""
    from lossift.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
