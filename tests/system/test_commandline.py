"""Every command there is, typed at a real mesh: on terminals of 80 and 200 columns, on a dumb one, in a pipe, in the C
locale, and with --json, whose answer is checked against its documented schema. A new command is found by the parser;
whoever adds one says here how it is typed.

A process takes half a second of a core, and all commands share `main` and what draws tables: each is typed once in a
process, on the terminal that is worst (dumb, 80 columns, C locale), and otherwise within this one. WHOLE are typed in
processes in every way.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import jsonschema
import pytest
from click.testing import CliRunner

from control.cli.answers import ANSWERS, schema_of
from control.cli.main import hostlane
from proxy.demo.mesh import HOSTLANE
from tests.tools.mesh import SERVICE, Mesh
from tests.tools.process import Process
from tests.tools.servers import Echo
from tests.tools.sockets import connect, free_ports
from tests.tools.typed import LOCALE_C, Done, on_terminal, piped, through_shell

ROOT = Path(__file__).resolve().parents[2]

AT_PROXY = "--socket {a}"
TYPED = {
    "validate": ["{config}", "--effective {config}"],
    "schema": ["host", "--answer status"],
    "status": [AT_PROXY],
    "health": [AT_PROXY, f"mesh {AT_PROXY}"],
    "hosts": [AT_PROXY, "--socket {control}"],
    "services": [AT_PROXY, "--socket {control}", f"--hosts {AT_PROXY}", f"--explain {SERVICE} {AT_PROXY}"],
    "links": [AT_PROXY],
    "streams": [AT_PROXY, f"--by service --by peer {AT_PROXY}"],
    "call": [f"{SERVICE} --tcp-check {AT_PROXY}", f"{SERVICE} --send hello {AT_PROXY}"],
    "edges": [AT_PROXY, "--socket {control}"],
    "top": [f"--count 1 {AT_PROXY}"],
    "reload": [f"--dry-run {AT_PROXY}", AT_PROXY],
    "check": ["--config {config}"],
    "explain": [f"{SERVICE} {AT_PROXY}"],
    "net plan": ["--config {config}"],
    "net status": ["--config {config}"],
    "net budget": ["--config {config}", "--hosts 4 --containers 8 --mac-limit 100 --config {config}"],
    "pool replay": ["{arrivals}"],
    "token create": ["--host host-z --socket {control}"],
    "token list": ["--socket {control}"],
    "token delete": ["no-such --socket {control}"],
    "revoke": ["host-z --socket {control}"],
    "hosts remove": ["host-z --socket {control}"],
    "ca status": ["--socket {control}"],
    "ca add": ["--socket {control}"],
    "ca activate": ["--socket {control}"],
    "ca drop": ["--force --socket {control}"],
    "certificates new": ["--directory {folder}/new host-a host-b"],
    "support": ["--out {folder}/support.tar.gz --config {config}"],
    "version": [""],
    "completion": ["bash"],
    "control backup": ["{folder}/backup.db --socket {control}"],
    "cdi install": ["--directory {folder}/cdi --door {folder}/door"],
    "cdi remove": ["--directory {folder}/cdi --engine {folder}/no.sock"],
}
"""By command, how it is typed; several times where it shows several things. In the order in which they are typed."""
ELSEWHERE = {
    "join": "needs a token: a test of its own, and test_join",
    "tap": "goes on until it is ended: a test of its own",
    "attach-service": "runs for as long as it is let: test_attached_proxy",
    "proxy": "runs for as long as it is let: all of tests/system",
    "control": "the same",
    "control init": "the fixture types it",
    "door": "needs containers: tests/door",
    "drain": "ends the proxy: the last test here",
    "net apply": "changes interfaces: tests/netdev",
    "net attach": "the same",
    "net detach": "the same",
    "net remove": "the same",
    "net watch": "the same",
    "demo": "makes a mesh of its own: tests/demo",
}
WHOLE = ("status", "explain", "top")
"""Typed in processes of their own in every way: tables, signs that are not ASCII, what has keys."""
QUIET = ("control backup",)
"""Prints nothing when it has done it."""
SLOW = ("support",)
"""Takes seconds: typed once, on the worst terminal."""
SENTENCES = ("schema", "explain", "top", "cdi", "completion", "support", "validate", "check", "token", "control",
             "certificates", "net", "revoke", "hosts remove", "ca add", "ca activate", "ca drop", "reload",
             "health")  # fmt: skip
"""What prints lines, not tables: a line is as long as its sentence, or its path."""


WIDE = {"COLUMNS": "200", "TTY_COMPATIBLE": "1", "NO_COLOR": "1"}
NARROW = {"COLUMNS": "80", "TTY_COMPATIBLE": "1", "TERM": "dumb"}
"""What makes a pipe a terminal of so many columns for rich."""
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3|4|9|10)[0-7](?:;[0-9;]*)?m")


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """All that does something when it is typed."""
    if not isinstance(command, click.Group) or (words and command.invoke_without_command):
        yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*words, name))


COMMANDS = dict(leaves(hostlane))


class World(NamedTuple):
    places: dict[str, str]
    mesh: Mesh

    def words(self, command: str, typed: str) -> list[str]:
        return [*command.split(), *(word.format(**self.places) for word in typed.split())]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Two proxies with an open stream and some that have ended, and a control server; all commands find them."""
    with ExitStack() as stack:
        service = stack.enter_context(Echo("tcp:127.0.0.1:0"))
        mesh = stack.enter_context(Mesh(service.address))
        folder = mesh.folder
        [port] = free_ports(1)
        file = folder / "control.yaml"
        file.write_text(
            f"name: control-1\nlisten: 127.0.0.1:{port}\nrun_dir: {folder}/control\nstate_dir: {folder}/state\n"
            "log: {format: json}\n"
        )
        assert piped(["control", "init", "--config", str(file)]).code == 0
        server = stack.enter_context(Process([*HOSTLANE, "control", "--config", str(file)]))
        server.wait_for("control server ready")
        # There is something to revoke then.
        assert piped(["token", "create", "--host", "host-z", "--socket", f"{folder}/control/control.sock"]).code == 0
        stream = stack.enter_context(mesh.call())
        stream.sendall(b"hello")
        assert stream.recv(5) == b"hello"
        with connect(mesh.upstream) as short:
            short.shutdown(socket.SHUT_WR)
            assert short.recv(1) == b""
        arrivals = folder / "arrivals.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.arrivals", "mixed"], cwd=ROOT, capture_output=True, text=True, check=True
        )  # fmt: skip
        arrivals.write_text("".join(done.stdout.splitlines(keepends=True)[:200]))
        yield World(
            {
                "a": f"{folder}/a/run/admin.sock", "b": f"{folder}/b/run/admin.sock", "config": str(mesh.a.file),
                "control": f"{folder}/control/control.sock", "folder": str(folder), "arrivals": str(arrivals),
            },
            mesh,
        )  # fmt: skip


def test_every_command_is_typed_somewhere() -> None:
    assert set(COMMANDS) == {*TYPED, *ELSEWHERE}
    assert not set(TYPED) & set(ELSEWHERE)


def judge(done: Done, words: list[str]) -> None:
    """It has said something, and neither that it is broken nor that it was typed wrongly."""
    assert done.code in (0, 1), (words, done)
    said = done.out + done.err
    assert said.strip() or " ".join(words).startswith(QUIET), words
    assert "Traceback" not in said, said
    assert "internal error" not in said, said
    assert "Usage:" not in said, said


def here(words: list[str], **environment: str) -> Done:
    """As it is typed, within this process. JSON is UTF-8 in every locale."""
    result = CliRunner(env=environment).invoke(hostlane, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exc_info)
    return Done(result.exit_code, result.stdout_bytes.decode(), result.stderr_bytes.decode())


def answers_of(command: str, words: list[str]) -> str:
    """The entry of ANSWERS."""
    for name in ANSWERS:
        option = name.partition(" --")[2]
        if name.partition(" --")[0] == command and option and f"--{option}" in words:
            return name
    return command


def has_json(command: str, words: list[str]) -> bool:
    if (command, "--effective" in words) == ("validate", False) or (command, "--hosts" in words) == ("services", True):
        return False
    return any("--json" in parameter.opts for parameter in COMMANDS[command].params)


def as_json(command: str, words: list[str]) -> None:
    done = here([*words, "--json"])
    judge(done, words)
    jsonschema.validate(json.loads(done.out), schema_of(answers_of(command, words)))
    jq_takes(done.out)


def jq_takes(answer: str) -> None:
    """Where it is installed; that it is, and commands in a pipe to it, is a test of its own."""
    if shutil.which("jq") is not None:
        done = subprocess.run(["jq", "-e", "."], input=answer, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (answer, done.stderr)


@pytest.mark.parametrize("command", TYPED)
def test_as_one_types_it(world: World, command: str) -> None:
    whole = command in WHOLE
    for number, typed in enumerate(TYPED[command]):
        words = world.words(command, typed)
        # First, as what changes something can do so but once.
        if has_json(command, words):
            as_json(command, words)
        if command not in SLOW:
            pipe = piped(words, **LOCALE_C) if whole else here(words)
            judge(pipe, words)
            assert "\x1b" not in pipe.out + pipe.err, words
            assert "no room for" not in pipe.out
            wide = on_terminal(words, 200, NO_COLOR="1") if whole else here(words, **WIDE)
            fits(wide, words, 200)
            assert not COLOUR.search(wide.out), (words, wide.out)
        narrow = on_terminal(words, 80, TERM="dumb", **LOCALE_C) if whole or number == 0 else here(words, **NARROW)
        fits(narrow, words, 80)
        assert "\x1b" not in narrow.out, words


def fits(done: Done, words: list[str], columns: int) -> None:
    judge(done, words)
    if not " ".join(words).startswith(SENTENCES):
        # The terminal echoes Ctrl-C.
        assert max(len(line.removesuffix("^C")) for line in done.lines) <= columns, (words, done.out)


@pytest.mark.parametrize("typed", ["check --config {config} --json", f"hosts {AT_PROXY} --json"])
def test_json_is_utf8_in_any_locale(world: World, typed: str) -> None:
    told = piped(world.words("", typed), encoding="utf-8", **LOCALE_C)
    assert json.loads(told.out)


@pytest.mark.jq
@pytest.mark.parametrize(
    "typed", ["version", *(f"{command} {AT_PROXY}" for command in ("status", "links", "explain echo"))]
)
def test_json_in_a_pipe_to_jq(world: World, typed: str) -> None:
    done = through_shell(f"hostlane {shlex.join(world.words('', typed))} --json | jq -e .")
    assert done.code == 0, done
    assert json.loads(done.out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns(command: str) -> None:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(hostlane, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 80, done.output


def watched() -> list[str]:
    return [name for name, each in COMMANDS.items() if any("--watch" in option.opts for option in each.params)]


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", [*watched(), "tap", "top"])
def test_what_goes_on_until_somebody_ends_it(world: World, command: str, columns: int) -> None:
    typed = {"tap": f"{SERVICE} {AT_PROXY}", "top": AT_PROXY}.get(command, f"--watch {AT_PROXY}")
    done = on_terminal(world.words(command, typed), columns, ended_by="q" if command == "top" else "\x03")
    fits(done, [command], columns)
    assert done.code == 0


@pytest.mark.parametrize("command", watched())
def test_a_watch_in_a_pipe_tells_json_lines(world: World, command: str) -> None:
    """Head ends it, as users do."""
    line = f"hostlane {shlex.join(world.words(command, f'--watch --json {AT_PROXY}'))} | head -n 1"
    [told] = through_shell(line, **LOCALE_C).out.splitlines()
    jsonschema.validate(json.loads(told), schema_of(command))
    jq_takes(told)


def test_tap_tells_json_lines(world: World) -> None:
    with busy(world.mesh):
        done = on_terminal(world.words("tap", f"{SERVICE} --json {AT_PROXY}"), 80, ended_by="\x03", **LOCALE_C)
    judge(done, ["tap"])
    assert done.code == 0
    # The terminal echoes Ctrl-C somewhere.
    whole = [line for line in done.out.splitlines() if line.startswith("{") and line.endswith("}")]
    assert whole, done.out
    for line in whole:
        jsonschema.validate(json.loads(line), schema_of("tap"))
    jq_takes("\n".join(whole))


@contextmanager
def busy(mesh: Mesh) -> Iterator[None]:
    """Streams open and end meanwhile."""
    over = threading.Event()

    def call() -> None:
        while not over.wait(0.05):
            mesh.call().close()

    calling = threading.Thread(target=call)
    calling.start()
    try:
        yield
    finally:
        over.set()
        calling.join()


def test_join_says_what_is_wrong_with_a_token() -> None:
    done = piped(["join", "no-token"], **LOCALE_C)
    assert done.code in (1, 2)
    assert len(done.err.splitlines()) <= 3
    assert "TOKEN" in done.err
    assert "no-token" not in done.err, "a token is a secret"


def test_drain_is_the_last(world: World) -> None:
    words = world.words("drain", "--now --json --socket {b}")
    done = piped(words, **LOCALE_C)
    judge(done, words)
    for line in done.out.splitlines():
        jsonschema.validate(json.loads(line), schema_of("drain"))
    jq_takes(done.out)
    assert world.mesh.b.wait() == 0
    # A stream that waits for host-b is cut.
    done = on_terminal(world.words("drain", "--timeout 1s --socket {a}"), 80, TERM="dumb", **LOCALE_C)
    fits(done, ["drain"], 80)
    assert world.mesh.a.wait() == 0
