"""What a worker leaves in a run folder and how a reader finds it."""
