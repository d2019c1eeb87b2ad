"""What a command does, as a function: run, verify, build a dataset. A job calls the rooms in order and leaves a folder behind."""
