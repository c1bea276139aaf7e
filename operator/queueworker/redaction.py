"""Removes passwords in URLs (`http://user:password@queue`) from everything that people and dashboards read.

Logs, status and metrics name peers by their URLs, which may hold credentials in a legacy environment. The credentials
are sent to the peer, and never shown.
"""

from __future__ import annotations

import re

# The user information of a URL, up to the last @, because an @ in a password is often not escaped. Without a colon, a
# quote and the like end it. With one they may stand in the password, so that too much is taken out of
# `http://host:80"a@b` rather than too little.
_NAME = r'[^\s/?#"<>\\]*@'
_CREDENTIALS = re.compile(rf"(?<=://)(?:[^\s/?#:]*:[^\s/?#]*@|{_NAME})")
# In JSON, a quote that belongs to a text has a backslash before it, and one that ends the text has none.
_ESCAPED = r'\\["\\]'
_IN_JSON = re.compile(rf'(?<=://)(?:(?:[^\s/?#:"\\]|{_ESCAPED})*:(?:[^\s/?#"\\]|{_ESCAPED})*@|{_NAME})')


def without_credentials(text: str) -> str:
    """Returns the text with the credentials removed from every URL in it."""
    return _CREDENTIALS.sub("", text) if "@" in text else text


def without_credentials_in_json(text: str) -> str:
    """As `without_credentials`, for JSON, which stays JSON."""
    return _IN_JSON.sub("", text) if "@" in text else text
