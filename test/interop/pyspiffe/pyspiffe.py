"""Uses py-spiffe as its users do, against the socket that SPIFFE_ENDPOINT_SOCKET names. It prints a line of JSON for each thing that it
learns: the identity of a token that the Workload API validated and py-spiffe too, then each certificate in use, verified by its own bundle.
"""
import sys
import threading

from chain import certificate, say
from spiffe import JwtSvid, WorkloadApiClient, X509Source

PATIENCE_SECONDS = 60

with WorkloadApiClient() as client:
    token = client.fetch_jwt_svid(audience={"shop"})
    validated = client.validate_jwt_svid(token.token, "shop")
    bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(token.spiffe_id.trust_domain)
    JwtSvid.parse_and_validate(token.token, bundle, {"shop"})
    say({"token": str(validated.spiffe_id)})

with X509Source(timeout_in_seconds=10) as source:
    updated = threading.Event()
    source.subscribe_for_updates(updated.set)
    while True:
        context = source.get_x509_context()
        svid = context.default_svid
        bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        say(certificate(svid.cert_chain, list(bundle.x509_authorities)))
        if not updated.wait(PATIENCE_SECONDS):
            sys.exit("nothing new came")
        updated.clear()
