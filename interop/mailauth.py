"""The suites of others for what the mail authentication filters do: SPF, DKIM, ARC."""

import os
import re

from harness import ROOT, case, check, run

SUITES = [("spf", "TestSuite", "rfc7208-tests.yml: 203/203"), ("dkim", "TestCorpus", "79/79 files of the corpus"),
          ("arc", "TestSuite", "arc-draft-validation-tests.yml: 171/171"), ("arc", "TestSealSuite", "arc-draft-sign-tests.yml: 17/17")]


@case(seconds=300)
def mail_authentication():
    """SUITES/spf, SUITES/dkim and SUITES/arc (validation and signing), or without SUITES our own cases."""
    suites = os.environ.get("SUITES")
    env = dict(os.environ, SUITES=os.path.realpath(suites)) if suites else dict(os.environ)
    said = ""
    for package, test, want in SUITES:
        said = run("go", "test", "-count=1", "-v", "-run", test, f"./plugins/mailauth/{package}", cwd=ROOT, env=env)
        check(not suites or want in said, f"{package}: no {want!r} in\n{said}")
        check(re.search(r"^ok\b", said, re.M), f"{package}:\n{said}")
    return ", ".join(want for *_, want in SUITES) if suites else "no SUITES: our own cases only"
