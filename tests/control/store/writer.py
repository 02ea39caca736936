"""Writes to a SQLite store, says so after each acknowledged commit, and dies by SIGKILL: ``writer.py PATH``.

For each line on stdin it forks a process (the imports are paid once) that writes ``pid``, then lines ``task number``
for each commit that was acknowledged, and after its death ``over``.
"""

from __future__ import annotations

import os
import sys

import trio

from control.store.base import Put
from control.store.sqlite import open_sqlite

TASKS = 8


async def write(path: str) -> None:
    async with open_sqlite(path) as store, trio.open_nursery() as nursery:
        start = {item.key: int(item.value[:8]) for item in (await store.read("task/")).items}

        async def one(task: int) -> None:
            number = start.get(f"task/{task}", 0)
            while True:
                number += 1
                value = b"%8d" % number + bytes(500)
                await store.commit(put=[Put(f"task/{task}", value), Put(f"beside/{task}", value)])
                os.write(1, b"%d %d\n" % (task, number))

        for task in range(TASKS):
            nursery.start_soon(one, task)


if __name__ == "__main__":
    for _ in sys.stdin:
        if (child := os.fork()) == 0:
            os.write(1, b"%d\n" % os.getpid())
            trio.run(write, sys.argv[1])
        os.waitpid(child, 0)
        os.write(1, b"over\n")
