"""The wheel holds all that the daemon serves: nothing of it is looked for in the source."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.deploy.installation import ROOT

PAGE = ROOT / "monitor/web"


def test_the_page_the_api_and_the_runbooks_are_in_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = [*PAGE.glob("templates/*"), *PAGE.glob("static/*"), PAGE / "openapi.json"]
    wanted = {f"monitor/web/{path.relative_to(PAGE)}" for path in ours}
    wanted |= {f"monitor/web/runbook_texts/{path.name}" for path in (ROOT / "deploy/runbooks").glob("*.md")}
    assert wanted - held == set()
    assert len(wanted) > 30
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    asks = (
        "from monitor.web import runbooks\n"
        "assert 'installed' in runbooks.__file__\n"
        "print(runbooks.runbook('WixUnreachable')[0].text)"
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", asks],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        check=True,
    )
    assert told.stdout == b"WixUnreachable\n"
