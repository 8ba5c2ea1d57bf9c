"""Validate an RO-Crate against the profile Provenance Run Crate without a network: `python crate_validation.py CRATE.zip`.

Needs roc-validator and rocrate, in an environment of their own (requirements-crate.txt). The validator wants the two
JSON-LD contexts from the network. Here it gets that of the package rocrate under the address of version 1.1, with the two
terms that had other addresses in 1.1, and the terms of the run profiles that the crates of this project use.
"""

import email.message
import importlib.util
import io
import json
import sys
import urllib.response
from pathlib import Path

import rdflib.parser
import requests
from rocrate_validator import services
from rocrate_validator.models import Severity
from rocrate_validator.utils.http import HttpRequester

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
RUN_CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"


def contexts() -> dict[str, str]:
    """Return address -> content of the contexts that are served instead of those in the network."""
    package = Path(importlib.util.find_spec("rocrate").origin).parent
    context = json.loads((package / "data/ro-crate.jsonld").read_text())
    context["@context"] |= {
        name: f"https://bioschemas.org/{name}" for name in ("ComputationalWorkflow", "FormalParameter")
    }
    run = {"@context": {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}}
    return {CONTEXT: json.dumps(context), RUN_CONTEXT: json.dumps(run)}


def serve(contents: dict[str, str]) -> None:
    """Answer the validator's requests, in both of its ways to ask, from `contents`."""

    def open_address(request):
        headers = email.message.Message()
        headers["Content-Type"] = "application/ld+json"
        return urllib.response.addinfourl(
            io.BytesIO(contents[request.full_url].encode()), headers, request.full_url, 200
        )

    class Requester:
        def __getattr__(self, name):
            raise requests.ConnectionError("no network in this test")

        def get(self, address, **options):
            response = requests.Response()
            response.status_code, response._content = 200, contents[address].encode()
            response.headers["Content-Type"] = "application/ld+json"
            return response

    rdflib.parser._urlopen = open_address
    HttpRequester.__new__ = lambda cls, *arguments, **options: Requester()


def issues_of(crate: str) -> list[str]:
    """Return one line per issue that the validator finds, recommendations included."""
    settings = services.ValidationSettings(
        rocrate_uri=crate,
        profile_identifier="provenance-run-crate-0.5",
        requirement_severity=Severity.RECOMMENDED,
        skip_availability_check=True,
    )
    issues = services.validate(settings).get_issues()
    return sorted({f"{issue.severity.name} {issue.check.identifier} {issue.message}" for issue in issues})


if __name__ == "__main__":
    serve(contexts())
    lines = issues_of(sys.argv[1])
    print("\n".join(lines))
    sys.exit(any(line.startswith("REQUIRED") for line in lines))
