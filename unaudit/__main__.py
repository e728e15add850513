"""``python -m unaudit`` is ``unaudit``."""

import sys

from unaudit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
