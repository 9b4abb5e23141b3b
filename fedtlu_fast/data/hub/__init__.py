"""Readers of data sets that the library `datasets` loads, from the Hugging Face hub or a local folder."""
