"""Circuits in the format of the MIB circuit track."""
