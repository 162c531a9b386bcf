"""What happens when something goes wrong: kills, stops, flipped bits, full disks, many clients, large images."""
