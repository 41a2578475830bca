"""`label-corpus report`: one HTML page about an output, that stands alone: no script, no request, credentials masked."""
