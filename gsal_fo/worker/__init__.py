"""Worker processes: starting them, reading their events, showing their progress."""
