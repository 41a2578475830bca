"""The commands to start with: init, demo, inspect, train, schema."""
