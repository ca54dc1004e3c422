"""Count the pixels of objects in masks, and score the counts."""
