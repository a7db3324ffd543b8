"""Models over data: equality, complexity, accuracy, live streams."""
