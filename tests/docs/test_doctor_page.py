"""docs/doctor.md is what the code counts, and the counts are good enough."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "doctor_page.py"))


def test_the_page_is_what_the_code_gives() -> None:
    written = (ROOT / "docs" / "doctor.md").read_text()
    assert written == SCRIPT["page"](), "run scripts/doctor_page.py"


def test_troubles_are_found_and_false_alarms_rare() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    caught, beside, clean = (
        float(share) for share in re.findall(r"\((\d+\.\d) %\)", text.split("| injected kind")[0])
    )
    assert caught >= 95.0
    assert beside <= 5.0
    assert clean <= 5.0
