"""Server-sent events as they arrive: bytes in any pieces to the data of whole events (HTML standard, section 9.2.6)."""

MAX_EVENT_BYTES = 1 << 20
"""An event that does not end before this is none."""
_BOM = b"\xef\xbb\xbf"


class EventStream:
    """Takes bytes and gives the data of each event that they complete. Only `data` fields count."""

    def __init__(self) -> None:
        self._line = bytearray()
        """The beginning of a line whose end has not come yet."""
        self._first = True
        self._after_return = False
        """A line has ended with a carriage return; a line feed that follows belongs to it."""
        self._data: list[bytes] = []
        self._size = 0

    def push(self, received: bytes) -> list[bytes]:
        """The events that are complete now. Raises ValueError for one without an end."""
        if self._after_return and received.startswith(b"\n"):
            received = received[1:]
            self._after_return = False
        if not received:
            return []
        self._after_return = received.endswith(b"\r")
        events: list[bytes] = []
        self._line += received
        if b"\n" in received or b"\r" in received:
            *lines, rest = self._line.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            self._line = rest
            for line in lines:
                self._take(bytes(line), events)
        if len(self._line) + self._size > MAX_EVENT_BYTES:
            raise ValueError("an event has no end")
        return events

    def flush(self) -> list[bytes]:
        """The last event, of a server that left out the empty line behind it."""
        return self.push(b"\n\n")

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if self._first:
            line = line.removeprefix(_BOM)
            self._first = False
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
            self._data, self._size = [], 0
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1
