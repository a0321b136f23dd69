import { expect } from '@jest/globals';
import { startGospiffe } from '../support/gospiffe';
import { issue, openClient, WorkloadFiles } from '../support/istio-world';
import { testWith } from '../support/peers';
import { liveCa, serverPair } from '../support/tls-ca';

/** It counts pings, and ends the connection at the fourth within five minutes: with one in 30 s after two minutes. */
const SECONDS = process.env.KEYTURN_TEST === 'full' ? 135 : 2;

testWith('gospiffe')(
  `field: a call that a server of grpc-go answers after ${SECONDS} s is waited for, and not ended by anything of ours`,
  async () => {
    const ca = await liveCa();
    const files = new WorkloadFiles().roots(ca).token('opaque');
    const pair = serverPair(ca);
    const args = [
      'slow',
      String(SECONDS),
      files.write('server.crt', pair.chainPem),
      files.write('server.key', pair.keyPem),
    ];
    const server = startGospiffe('', args);
    const { port } = await server.next();
    const { ca: client } = await openClient(files, {
      name: 'istio-csr',
      address: `localhost:${port}`,
    });
    await expect(issue(client, AbortSignal.timeout((SECONDS + 60) * 1_000))).rejects.toThrow(
      'ABORTED: waited to the end',
    );
    await server.stop();
  },
  240_000,
);
