"""What an output says: status, evaluate, compare, and its rows for notebooks. Reads committed files only; starts no Ray."""
