"""The verbs that a notebook calls: typed settings, cached artefacts and experiments, and what made a number."""
