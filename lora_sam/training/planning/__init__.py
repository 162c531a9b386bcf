"""What a run will take, memory, time and disk, before it starts; and how to stay within a limit."""
