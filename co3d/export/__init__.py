"""Models as files for other runtimes, and a runner that steps them (the extra `deploy`)."""
