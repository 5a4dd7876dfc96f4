"""Pairs of torchvision's data sets."""
