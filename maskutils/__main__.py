"""`python -m maskutils`, and the command `maskutils`."""

import sys

from maskutils.core.checks import MissingPackage, needs


def main() -> None:
    """Run the command line."""
    try:
        with needs("study"):
            from maskutils.batch.cli import main as run
    except MissingPackage as error:
        sys.exit(f"error: {error}")
    run()


if __name__ == "__main__":
    main()
