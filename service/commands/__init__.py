"""One module per command; each reaches for the runtime, and the exporter, only inside its function."""
