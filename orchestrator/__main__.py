"""The program: answers signals first, and imports the command line then.

Importing takes a while, above all from a cold disk; Ctrl-C in that while is no traceback.
"""

from __future__ import annotations

from orchestrator import interrupts


def main() -> None:
    """Run the command line and exit with its code."""
    interrupts.watch()
    from orchestrator import cli

    cli.main()


if __name__ == "__main__":
    main()
