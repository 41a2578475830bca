"""What a job asks for against what its input and its output have."""
