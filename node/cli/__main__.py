"""``python -m node.cli``: the same as ``wippy``."""

import sys

from node.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
