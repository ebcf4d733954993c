"""The command `instnorm`, as its script calls it.

Importing the package takes a while, and Ctrl-C in that time should end in a line as well; so
this module is outside, and has nothing to import.
"""

import sys


def main() -> int:
    """Import and run the command line."""
    try:
        from instnorm.cli import main

        return main()
    except KeyboardInterrupt:
        print("instnorm: interrupted", file=sys.stderr)
        return 130  # what a shell reports for a program that SIGINT ended
