"""Models of ours, and how those of others are made for the data."""
