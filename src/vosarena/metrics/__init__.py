"""From masks to counts to scores."""
