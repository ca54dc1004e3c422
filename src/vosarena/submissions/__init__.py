"""Archives for evaluation servers: check and pack."""
