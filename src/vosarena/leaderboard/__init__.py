"""From scores to tables: leaderboard, comparisons, published and server scores, Markdown and LaTeX."""
