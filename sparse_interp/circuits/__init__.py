"""Circuits: finding them, measuring them, keeping them."""
