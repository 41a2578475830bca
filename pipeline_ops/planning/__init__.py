"""Listed inputs and commits -> read tasks; a sample of the input -> totals, hours, cost and bottleneck of a cluster."""
