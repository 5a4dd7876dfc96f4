"""Checks, files, folders, random streams and progress bars, for all other parts of the package."""
