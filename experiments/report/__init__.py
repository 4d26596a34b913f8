"""What a benchmark shows: summary, leaderboard, figures and pages."""
