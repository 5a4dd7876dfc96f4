"""`python -m maskutils`, and the command `maskutils`."""


def main() -> None:
    """Run the command line."""
    from maskutils.batch.cli import main as run

    run()


if __name__ == "__main__":
    main()
