"""Secure aggregation by pairwise masks: the server learns the sum of the clients' vectors, and no vector."""
