"""Which units matter most: learned gates, attribution and chance."""
