"""Lints every PEM certificate on standard input against RFC 5280 and prints each finding code with its count, then how many were linted."""

import base64
import collections
import re
import sys

from pkilint import loader
from pkilint.pkix import certificate, extension, name

validator = certificate.create_pkix_certificate_validator_container(
    certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
    [
        certificate.create_issuer_validator_container([]),
        certificate.create_validity_validator_container(),
        certificate.create_subject_validator_container([]),
        certificate.create_extensions_validator_container([]),
        certificate.create_spki_validator_container([]),
    ],
)

findings = collections.Counter()
linted = 0
for body in re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", sys.stdin.read(), re.DOTALL):
    document = loader.load_certificate(base64.b64decode(body), "certificate")
    for result in validator.validate(document.root):
        for finding in result.finding_descriptions:
            findings[f"{finding.finding.severity.name} {finding.finding.code}"] += 1
    linted += 1

for code, count in sorted(findings.items()):
    print("finding", code, count)
print("linted", linted)
