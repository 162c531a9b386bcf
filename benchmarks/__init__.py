"""What this project claims about speed, memory and size, measured: one script per question, results as JSON."""
