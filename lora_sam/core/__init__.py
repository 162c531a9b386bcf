"""What every room needs and no room owns; imports nothing of the package."""
