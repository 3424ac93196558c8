"""Which Pythons there are, by files alone, and which of them an experiment would run in."""
