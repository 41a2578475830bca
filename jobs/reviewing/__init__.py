"""`label-corpus review`: a sample of the labeled documents for a person to correct, as a page and a spreadsheet."""
