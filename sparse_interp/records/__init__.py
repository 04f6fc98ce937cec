"""Activations of units on excerpts of text: top, by quantile and at random."""
