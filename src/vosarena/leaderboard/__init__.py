"""Turn scores into tables: leaderboard, comparisons, published and server scores, Markdown and LaTeX."""
