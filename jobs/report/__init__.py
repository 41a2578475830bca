"""`label-corpus report`: one HTML page about an output, that stands alone."""
