"""What both programs beside this do with a certificate."""
import json
from datetime import datetime, timezone

from cryptography import x509
from cryptography.x509 import verification


def say(fact):
    print(json.dumps(fact), flush=True)


def certificate(chain, roots):
    """A certificate in use, verified by its own bundle for TLS as server and as client."""
    leaf, *others = chain
    policy = verification.PolicyBuilder().store(verification.Store(roots)).time(datetime.now(timezone.utc))
    policy.build_client_verifier().verify(leaf, others)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {"id": names.get_values_for_type(x509.UniformResourceIdentifier)[0], "serial": f"{leaf.serial_number:x}"}
