"""Models with one interface: frames and prompts in, one label map per frame out."""
