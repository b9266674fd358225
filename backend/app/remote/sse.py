"""Server-sent events, as they arrive (HTML standard, section 9.2.6): bytes in any pieces to the data of whole events."""

MAX_EVENT_BYTES = 1 << 20
"""An event that does not end before this is none."""


class EventStream:
    """Takes bytes and gives the data of each event that they complete. Only `data` fields count."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def push(self, received: bytes) -> list[bytes]:
        """The events that are complete now. Raises ValueError for one without an end."""
        lines = (self._rest + received).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].removeprefix(b" ")
                self._data.append(data)
                self._size += len(data)
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise ValueError("an event has no end")
        return events

    def flush(self) -> list[bytes]:
        """The last event, of a server that left out the empty line behind it."""
        events = self.push(b"\n\n")
        return events
