"""Everything that can compute a run's masks, side by side: opened, measured, and told in one table."""
