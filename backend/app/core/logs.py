"""Log lines on standard error. What people said is never in them, nor are keys."""

import logging
import logging.config


def set_up_logging(level: str) -> None:
    """Log at `level` (debug, info, warning, error) and above; our own lines and uvicorn's look alike."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {
                "uvicorn": {"level": level.upper(), "handlers": [], "propagate": True},
                "uvicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
                "httpx": {"level": "WARNING"},
            },
        }
    )
