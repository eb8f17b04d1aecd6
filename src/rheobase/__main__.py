"""`python -m rheobase` is the command line: a launcher of several processes starts it so."""

import sys

from rheobase.cli import main

if __name__ == "__main__":
    sys.exit(main())
