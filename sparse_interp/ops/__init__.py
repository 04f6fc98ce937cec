"""Arrays in, arrays out: selection, sparse products, attention."""
