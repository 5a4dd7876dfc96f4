"""The verbs that a notebook calls: typed settings, cached artefacts and experiments, and what made a number."""

from maskutils.core.checks import needs

with needs("study", "pandas", "pydantic", "scipy"):  # here, so that no module below has to say what it lacks
    pass
