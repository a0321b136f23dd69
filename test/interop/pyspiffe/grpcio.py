"""Calls the Workload API by grpcio's asynchronous stack, without a library of SPIFFE's but its messages, against the socket that
SPIFFE_ENDPOINT_SOCKET names. It prints a line of JSON for each thing that it learns: the identity of a token that the Workload API
validated, then each certificate in use, verified by its own bundle.
"""
import asyncio
import os

import grpc
from chain import certificate, say
from cryptography import x509
from spiffe._proto import workload_pb2, workload_pb2_grpc

METADATA = (("workload.spiffe.io", "true"),)


def certificates(der):
    """Of DER certificates that follow one another."""
    found = []
    while der:
        length, head = der[1], 2
        if length & 0x80:
            head = 2 + (length & 0x7F)
            length = int.from_bytes(der[2:head], "big")
        found.append(x509.load_der_x509_certificate(der[: head + length]))
        der = der[head + length :]
    return found


async def main():
    async with grpc.aio.insecure_channel(os.environ["SPIFFE_ENDPOINT_SOCKET"]) as channel:
        api = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        tokens = await api.FetchJWTSVID(workload_pb2.JWTSVIDRequest(audience=["shop"]), metadata=METADATA)
        request = workload_pb2.ValidateJWTSVIDRequest(audience="shop", svid=tokens.svids[0].svid)
        say({"token": (await api.ValidateJWTSVID(request, metadata=METADATA)).spiffe_id})
        while True:
            try:
                async for update in api.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=METADATA, wait_for_ready=True):
                    svid = update.svids[0]
                    say(certificate(certificates(svid.x509_svid), certificates(svid.bundle)))
            except grpc.aio.AioRpcError as ended:
                if ended.code() != grpc.StatusCode.UNAVAILABLE:
                    raise


asyncio.run(asyncio.wait_for(main(), 60))
