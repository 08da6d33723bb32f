"""Language models by name or configuration: facts that need no torch, and the builder that does."""
