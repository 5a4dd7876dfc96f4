"""What every other part stands on: checks, files, folders, random streams. It imports nothing of ours."""
