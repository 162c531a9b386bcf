"""What the data check shows to people: its page and its pictures."""
