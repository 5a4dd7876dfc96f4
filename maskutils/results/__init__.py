"""Tables, statistics, claims, choices and figures, all made from records. Nothing here imports torch."""

from maskutils.core.checks import needs

# Here, so that no module below has to say what it lacks.
with needs("study", "pandas", "scipy", "matplotlib", "seaborn"):
    pass
