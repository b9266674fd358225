"""Log lines on standard error. What people said is never in them, nor are keys."""

import logging
import logging.config


def set_up_logging(level: str) -> None:
    """Log at `level` (debug, info, warning, error) and above; our own lines and uvicorn's look alike.

    Debug is for our own lines: libraries write whole messages at that level, and with them what people say.
    """
    others = "INFO" if level == "debug" else level.upper()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": others, "handlers": ["stderr"]},
            "loggers": {
                "app": {"level": level.upper()},
                "uvicorn": {"level": others, "handlers": [], "propagate": True},
                "uvicorn.error": {"level": others},
                "uvicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
                "httpx": {"level": "WARNING"},
            },
        }
    )
