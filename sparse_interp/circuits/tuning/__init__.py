"""The search for hyper-parameters of pruning."""
