"""The models: our own, those of `transformers`, and pre-trained ones, all made to fit the data."""
