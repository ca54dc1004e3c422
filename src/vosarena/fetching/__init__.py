"""From an address to one verified file: sources, downloads, checks, archives."""
