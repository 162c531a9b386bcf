"""One run on disk: its settings and files, what is merged or exported and still current, loading, resuming."""
