"""Sources of samples, one class each."""
