"""Tables, statistics, claims, choices and figures, all made from records. Nothing here imports torch."""

from maskutils.core.checks import needs

with needs(
    "study", "pandas", "scipy", "matplotlib", "seaborn"
):  # here, so that no module below has to say what it lacks
    pass
