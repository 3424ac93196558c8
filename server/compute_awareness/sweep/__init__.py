"""Many runs that differ in a few fields: what all of them take together, and how they share cards."""
