from __future__ import annotations

import json
import re
from pathlib import Path

from control.api.accessline import AccessLine, TapLine

DOC = Path(__file__).resolve().parents[3] / "docs" / "access-log.md"


def test_a_line_has_what_the_docs_say() -> None:
    text = DOC.read_text()
    fields = text.partition("| field |")[2]
    assert re.findall(r"^\| `(\w+)` \|", fields, re.MULTILINE) == list(AccessLine.__struct_fields__)
    [example] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert list(json.loads(example)) == list(AccessLine.__struct_fields__)


def test_who_watches_sees_the_same() -> None:
    assert set(TapLine.__struct_fields__) == {*AccessLine.__struct_fields__, "lost"}
