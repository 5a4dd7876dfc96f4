"""Pairs of domains with disjoint train, validation and test splits, and batches of images."""
