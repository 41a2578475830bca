"""What is left to label, as read tasks; samples of the input, and estimates of totals, hours and cost from them."""
