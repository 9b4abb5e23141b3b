"""Figures from rows: means, spreads, gains, costs, and how steady a ranking is."""
