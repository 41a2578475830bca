"""The records that all other packages exchange: units and the pieces of files in them, rejects, failures, errors, column names.

Everything here is frozen and converts to and from JSON or Arrow cells without loss. Imports no other package of the product.
"""
