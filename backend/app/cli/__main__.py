"""`python -m app.cli` is the same as `ahoy`, for where the command is not installed."""

from app.cli import main

main()
