"""Runs that join the rooms: what a configuration's `run` can name."""
