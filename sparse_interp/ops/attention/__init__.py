"""Causal attention, with a sink where one is asked for."""
