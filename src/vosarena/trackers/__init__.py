"""Models behind one interface: label maps for frames, given prompts."""
