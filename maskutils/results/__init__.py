"""Tables, statistics, claims, choices and figures, all made from records. Nothing here imports torch."""
