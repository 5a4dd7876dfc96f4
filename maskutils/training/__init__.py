"""The one training loop, evaluation, mask learning, and the protocols and baselines that transfer a network."""
