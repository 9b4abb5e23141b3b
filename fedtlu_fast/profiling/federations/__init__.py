"""The same federation in several simulators, to be timed side by side (`fedtlu bench-sim`)."""
