"""Photos that travel with the package, for the demo and the first test of an installation (see NOTICE.md)."""
