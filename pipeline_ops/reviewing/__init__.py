"""Documents that a reviewer has labeled: samples of an output, corrections, what they say about all documents."""
