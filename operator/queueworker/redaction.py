"""Removes passwords in URLs (`http://user:password@queue`) from everything that people and dashboards read.

Logs, status and metrics name peers by their URLs, which may hold credentials in a legacy environment. The credentials
are sent to the peer, and never shown.
"""

from __future__ import annotations

import re

# The user information of RFC 3986, section 3.2.1, up to the last @, because an @ in a password is often not escaped. A
# double quote ends it, because the text may be JSON.
_CREDENTIALS = re.compile(r'(?<=://)[^\s/?#"<>\\]*@')


def without_credentials(text: str) -> str:
    """Returns the text with the credentials removed from every URL in it."""
    return _CREDENTIALS.sub("", text) if "@" in text else text
