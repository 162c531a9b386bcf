"""Programs that questions start in fresh processes; each prints one JSON object as its last line."""
