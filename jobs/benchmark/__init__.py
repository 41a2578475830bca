"""`label-corpus benchmark`: the job against the bare model and its peers, on the same corpus, model, dtype and cores."""
