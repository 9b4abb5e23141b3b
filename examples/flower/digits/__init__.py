"""A Flower app: a small Transformer learns scikit-learn's digits, and only its best layers are updated."""
