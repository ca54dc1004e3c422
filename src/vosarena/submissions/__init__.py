"""Archives for evaluation servers."""
