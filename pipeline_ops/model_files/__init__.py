"""A model's folder by its files alone: what its weights hold, and what is wrong with them, in milliseconds and without torch.

In: the files of a folder and its config.json. Out: tensors' names, dtypes and shapes; a UserError that names file and remedy.
"""
