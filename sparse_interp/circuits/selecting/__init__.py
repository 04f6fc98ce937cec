"""From a ranking of units to a circuit that holds."""
