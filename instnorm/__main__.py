"""`python -m instnorm`: the command line."""

import sys

from instnorm.cli import main

if __name__ == "__main__":
    sys.exit(main())
