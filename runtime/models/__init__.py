"""Models that travel with the package, one folder each."""
