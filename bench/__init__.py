"""What ``make bench`` runs: how fast the engine is, beside yardsticks measured in the same run."""
