"""Arrays in, arrays out: selection by magnitude, and nothing but jax."""
