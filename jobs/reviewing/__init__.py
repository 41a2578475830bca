"""Labels that people review: a sample as a page and a spreadsheet, and what the reviewed documents say of all."""
