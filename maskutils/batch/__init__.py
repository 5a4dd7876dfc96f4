"""Many parameterised notebooks at once: the plan, its execution and the command line."""

from maskutils.core.checks import needs

with needs("study", "distributed", "filelock", "nbformat", "pandas", "papermill", "pydantic", "rich", "typer", "yaml"):
    pass
