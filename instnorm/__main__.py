"""`python -m instnorm`: the command line."""

import sys

from _instnorm_command import main

if __name__ == "__main__":
    sys.exit(main())
