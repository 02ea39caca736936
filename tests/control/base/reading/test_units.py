from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.base.reading import units

RAW = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.text())
    | st.dictionaries(st.text(), st.text())
)
READERS = [
    units.seconds, units.duration, units.size, units.host_name, units.service_name, units.account, units.uid,
    units.mode, units.absolute_path, units.share,
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1ms", 0.001), ("500ms", 0.5), ("5s", 5.0), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0), ("1.1ms", 0.0011)],
)
def test_duration(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


def test_share() -> None:
    assert [units.share(raw) for raw in ("auto", 1, 0.01)] == [None, 1.0, 0.01]
    for raw in (0, -1, 1.5, True, "0.5", float("nan")):
        with pytest.raises(ValueError, match="allowed: auto, or a number above 0 and at most 1"):
            units.share(raw)


def test_patience_is_a_duration_of_up_to_a_week() -> None:
    assert [units.patience(text) for text in ("1ms", "24h", "168h")] == [0.001, 86400.0, 604800.0]
    for text in ("0s", "169h"):
        with pytest.raises(ValueError, match=rf'found "{text}"; allowed: 1ms to 168h'):
            units.patience(text)
    with pytest.raises(ValueError, match="which has no unit"):
        units.patience(5)


def test_seconds_of_any_length() -> None:
    assert units.seconds("0s") == 0
    assert units.seconds("1.1ms") == 0.0011
    assert units.seconds("24h") == 86400


@pytest.mark.parametrize(
    "raw", ["", "5", "s", "5 s", "-5s", "5S", "5sec", "1m30s", "1e3s", ".5s", "٥s", "5s\n", None, True, [], {}]
)
def test_bad_duration(raw: object) -> None:
    with pytest.raises(ValueError, match=r"; allowed: a duration with its unit"):
        units.duration(raw)


@pytest.mark.parametrize("raw", [5, 0.5])
def test_a_duration_without_unit_gets_a_hint(raw: object) -> None:
    with pytest.raises(ValueError, match=rf"found {raw}, which has no unit; allowed: .* 5s"):
        units.duration(raw)


@pytest.mark.parametrize("text", ["0s", "0.5ms", "61m", "2h", "999999999h"])
def test_duration_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=rf'found "{text}"; allowed: 1ms to 1h'):
        units.duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("1B", 1), ("64KiB", 65536), ("4MiB", 4194304), ("1GiB", 1073741824), ("1024GiB", 1 << 40)]
)
def test_size(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize("raw", ["", "4", "4MB", "4M", "4mib", "1.5MiB", "-1B", "4 MiB", None, False, []])
def test_bad_size(raw: object) -> None:
    with pytest.raises(ValueError, match=r"; allowed: a size with its unit"):
        units.size(raw)


def test_size_out_of_range() -> None:
    assert units.size("4KiB", "4KiB", "1MiB") == 4096
    assert units.size("1MiB", "4KiB", "1MiB") == 1 << 20
    for text in ("4095B", "1025KiB"):
        with pytest.raises(ValueError, match=rf'found "{text}"; allowed: 4KiB to 1MiB'):
            units.size(text, "4KiB", "1MiB")


@pytest.mark.parametrize("text", ["a", "7", "host-a", "a.b.example", "a" * 63])
def test_names(text: str) -> None:
    assert units.host_name(text) == units.service_name(text) == text


@pytest.mark.parametrize("raw", ["", "-a", "a-", ".a", "A", "a b", "a\n", "ä", "a/b", "a" * 64, None, 7, True, []])
def test_bad_names(raw: object) -> None:
    for reader in (units.host_name, units.service_name):
        with pytest.raises(ValueError, match=r"; allowed: 1 to 63 of"):
            reader(raw)


def test_only_services_have_underscores() -> None:
    assert units.service_name("my_service") == "my_service"
    with pytest.raises(ValueError, match="my_host"):
        units.host_name("my_host")


@pytest.mark.parametrize("raw", [None, 0, 1000, 2**32 - 2, "redis", "_apt", "www-data", "j.doe"])
def test_account(raw: object) -> None:
    assert units.account(raw) == raw


@pytest.mark.parametrize("raw", [-1, 2**32 - 1, True, 1.5, "", "-x", "a b", "a:b", "x" * 33, []])
def test_bad_account(raw: object) -> None:
    with pytest.raises(ValueError, match=r"; allowed: a name or a numeric id"):
        units.account(raw)


def test_optional_size() -> None:
    assert units.or_null(units.size)(None, low="1B", high="1KiB") is None
    assert units.or_null(units.size)("1KiB", low="1B", high="1KiB") == 1024
    with pytest.raises(ValueError, match=r"allowed: 1B to 1KiB"):
        units.or_null(units.size)("2KiB", low="1B", high="1KiB")


@pytest.mark.parametrize("raw", [0, 1000, 2**32 - 2])
def test_uid(raw: int) -> None:
    assert units.uid(raw) == raw


@pytest.mark.parametrize("raw", [None, -1, 2**32 - 1, True, 1.5, "root", "0", []])
def test_bad_uid(raw: object) -> None:
    with pytest.raises(ValueError, match=r"; allowed: a numeric user id"):
        units.uid(raw)


@pytest.mark.parametrize(("text", "mode"), [("0666", 0o666), ("660", 0o660), ("0000", 0)])
def test_mode(text: str, mode: int) -> None:
    assert units.mode(text) == mode


@pytest.mark.parametrize("raw", [666, "0888", "66", "1777", "0o660", "rw", "", None, True])
def test_bad_mode(raw: object) -> None:
    with pytest.raises(ValueError, match=r"; allowed: an octal mode"):
        units.mode(raw)


@pytest.mark.parametrize(
    ("text", "path"),
    [("/run/hostlane", "/run/hostlane"), ("/run/", "/run"), ("//run//x", "/run/x"), ("/a b", "/a b"), ("/", "/")],
)
def test_absolute_path(text: str, path: str) -> None:
    assert units.absolute_path(text) == path


@pytest.mark.parametrize(
    "raw", ["", "run", "./run", "~/x", "/a/../b", "/a/./b", "/a\0b", "/a\nb", "/\udcff", None, 5, []]
)
def test_bad_absolute_path(raw: object) -> None:
    with pytest.raises(ValueError, match=r"; allowed: an absolute path"):
        units.absolute_path(raw)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (None, "nothing"),
        (True, "true"),
        (5, "5"),
        ({}, "a mapping"),
        ([1], "a list"),
        ("a", '"a"'),
        ("für", '"für"'),
        ("a\nb\x1b[31m", '"a\\nb\\u001b[31m"'),
        ('"', '"\\""'),
        ("x" * 100, '"' + "x" * 60 + '..."'),
    ],
)
def test_show(raw: object, shown: str) -> None:
    assert units.show(raw) == shown


@pytest.mark.parametrize("reader", READERS)
@given(raw=RAW)
def test_readers_raise_one_printable_line_and_nothing_else(reader: object, raw: object) -> None:
    try:
        reader(raw)  # type: ignore[operator]
    except ValueError as error:
        assert str(error).startswith("found ")
        assert "; allowed: " in str(error)
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("02:00:5e:10:00:01", True), ("02:00:5E:10:00:01", False), ("02:00:5e:10:00", False), ("02005e100001", False)],
)
def test_a_mac(text: str, is_one: bool) -> None:
    assert units.is_mac(text) is is_one


def test_lists_of_services() -> None:
    assert units.service_names("all") == "all"
    assert units.service_names(["redis", "web"]) == ("redis", "web")
    assert units.service_names([]) == ()
    for raw in ("redis", None, {"redis": 1}, [1], ["Redis"], ["a", "a"]):
        with pytest.raises(ValueError, match="^found .*; allowed: "):
            units.service_names(raw)
