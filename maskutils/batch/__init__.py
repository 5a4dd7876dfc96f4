"""Many parameterised notebooks at once: the plan, its execution and the command line."""
