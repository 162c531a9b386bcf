"""What merging is made of: several adapters into one, the proof that nothing changed, other layouts of the result."""
