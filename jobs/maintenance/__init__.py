"""What keeps an output in order: verify, sweep, compact."""
