"""The bridge from Numba to XLA, and the proof that a kernel must give."""
