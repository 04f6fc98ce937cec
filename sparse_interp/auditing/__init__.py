"""From a circuit to a verdict: what is asked of it, and what it meets."""
