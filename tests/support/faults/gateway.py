"""A gateway between the router and one peer, which answers a random share of the calls by itself."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import orjson

from tests.support.faults.http_faults import foreign
from tests.support.foreign_answers import BEHIND, FOREIGN

if TYPE_CHECKING:
    from tests.support.faults.proxy import Exchange, HttpProxy, Message

_FOREIGN, _BEHIND = list(FOREIGN.values()), list(BEHIND.values())


class Gateway:
    """Between `open` and `close` it is in front of the peer.

    The seed decides what the n-th call of each path gets, in whatever order calls of different paths arrive.
    `behind` is the share of its answers that it gives after the peer has acted.
    """

    def __init__(self, proxy: HttpProxy, seed: str, share: float = 0.12, behind: float = 0.1) -> None:
        self._proxy = proxy
        self._seed = seed
        self._share = share
        self._behind = behind
        self.popped: set[str] = set()
        """Tasks that the queue handed out behind it."""
        self.reported: set[str] = set()
        """Tasks of which the queue has a report that it answered."""
        self.ran: set[str] = set()
        """Tasks that an executor ran, and whose result it kept."""
        self.answered = 0

    def open(self) -> None:
        self._proxy.spoil(self._answer, chosen=self._is_chosen)

    def close(self) -> None:
        self._proxy.heal()

    def _random(self, path: str) -> Random:
        return Random(f"{self._seed} {path} {self._proxy.seen[path]}")

    def _is_chosen(self, request: Message) -> bool:
        return self._random(request.path).random() < self._share

    async def _answer(self, exchange: Exchange) -> None:
        random = self._random(exchange.request.path)
        random.random()
        if random.random() < self._behind:
            answer = random.choice(_BEHIND)
            self._note(exchange.request, await exchange.forward())
        else:
            answer = random.choice(_FOREIGN)
        self.answered += 1
        await exchange.reply(foreign(answer))

    def _note(self, request: Message, answer: Message) -> None:
        """Keep what the peer has done and the router does not hear of."""
        if request.path == "/tasks/next":
            task = orjson.loads(answer.body) if answer.status == 200 else None
            self.popped.update([task["eval_id"]] if task else [])
        elif request.path.startswith("/tasks/") and request.body and answer.status == 200:
            self.reported.add(request.path.split("/")[2])
        elif request.path == "/execute" and answer.status == 200:
            self.ran.add(orjson.loads(request.body)["eval_id"])
