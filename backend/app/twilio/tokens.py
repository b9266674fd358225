"""Tokens that admit a media stream: each is for one call, for a short time, and once.

A stream's address can be known to anybody, and the signature of its request is the same every time. The token is what
ties a stream to the call whose webhook was answered a moment ago.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

LIFETIME_S = 60.0
"""Twilio opens the stream as soon as it has read the answer; a tunnel may be slow."""
CAPACITY = 10_000
"""Tokens that may wait to be used; beyond this the oldest goes."""


class _Token(NamedTuple):
    call_sid: str
    expires_s: float


class StreamTokens:
    """Gives tokens and takes them back."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._tokens: OrderedDict[str, _Token] = OrderedDict()

    def issue(self, call_sid: str) -> str:
        """A token for the stream of this call. An earlier one of the same call that was not used is void."""
        now_s = self._now_s()
        void = [key for key, token in self._tokens.items() if token.call_sid == call_sid or token.expires_s <= now_s]
        for key in void:
            del self._tokens[key]
        while len(self._tokens) >= CAPACITY:
            self._tokens.popitem(last=False)
        key = secrets.token_urlsafe(24)
        self._tokens[key] = _Token(call_sid, now_s + LIFETIME_S)
        return key

    def redeem(self, key: str, call_sid: str) -> bool:
        """Whether the token admits the stream of this call. Whatever the answer, it admits nothing any more."""
        token = self._tokens.pop(key, None)
        return token is not None and token.call_sid == call_sid and token.expires_s > self._now_s()
