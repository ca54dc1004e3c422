"""The report page, its pictures and figures for papers."""
