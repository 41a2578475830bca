"""`label-corpus benchmark`: the job against the bare model, on the same corpus, model, dtype and cores."""
