"""Keeps passwords that stand in URLs (`http://user:password@queue`) out of what people and dashboards read.

Peers are named by their URL in logs, status and metrics, and a legacy environment may have credentials
there. They are sent to the peer and shown to nobody.
"""

from __future__ import annotations

import re

# The user information of RFC 3986, section 3.2.1; up to the last @, because people do not escape theirs. A double
# quote ends it: what is redacted may be JSON.
_CREDENTIALS = re.compile(r'(?<=://)[^\s/?#"<>\\]*@')


def without_credentials(text: str) -> str:
    """The text, with every URL in it as it is without credentials."""
    return _CREDENTIALS.sub("", text) if "@" in text else text
