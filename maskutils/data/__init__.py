"""Pairs of domains with disjoint train, validation and test splits, and batches of images."""

FOLDERS = "folders:"  # what the name of a pair of image folders begins with
