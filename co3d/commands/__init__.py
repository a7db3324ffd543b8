"""One module per command; each command imports what it needs when it runs."""
