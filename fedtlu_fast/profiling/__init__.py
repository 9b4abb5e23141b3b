"""Measures the speed and accuracy of the operations on this machine, beside hand-written code."""
