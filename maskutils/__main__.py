"""`python -m maskutils`, and the command `maskutils`."""

import signal
import sys

from maskutils.core.checks import MissingPackage, needs


def main() -> None:
    """Run the command line. A signal that ends it is as Ctrl-C."""
    try:
        with needs("study"):
            from maskutils.batch import cli  # which adds its commands to the app
            from maskutils.batch.app import app
    except MissingPackage as error:
        sys.exit(f"error: {error}")
    for kind in cli.enders():
        signal.signal(kind, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
