"""How fast the operations run on this machine, beside what people write by hand, and how right they are."""
