"""`python -m rheobase` is the command line: a launcher of several processes starts it so."""

import os
import sys

from rheobase.cli import main

if __name__ == "__main__":
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from rheobase.train.processes import leave

        leave(code)
    sys.exit(code)
