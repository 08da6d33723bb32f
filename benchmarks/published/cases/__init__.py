"""One module a kind of claim: each has ``rows(published)``, which yields a `Row` for every claim that it can check.

A module that is added here is found by itself.
"""
