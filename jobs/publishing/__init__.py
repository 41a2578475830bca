"""Labels for those who query them: the output as a table, brought to its commits by hand, and as a dataset on the hub."""
