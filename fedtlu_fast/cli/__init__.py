"""The command ``fedtlu``: thin; it parses, calls and prints."""
