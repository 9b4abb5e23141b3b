"""Runs the same federation in several simulators, to compare their speed (`fedtlu bench-sim`)."""
