"""What people look at: tables, plots, and one HTML page per run."""
