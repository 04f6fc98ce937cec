"""Programs of single GPU threads, compiled for a GPU or emulated on a CPU."""
