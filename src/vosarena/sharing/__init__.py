"""Share results: bundles of counts and provenance, and studies merged from them."""
