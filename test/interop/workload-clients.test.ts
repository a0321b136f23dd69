import { X509Certificate } from 'node:crypto';
import { resolve } from 'node:path';
import { expect, test } from '@jest/globals';
import {
  JWTSVIDRequest,
  JWTSVIDResponse,
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDResponse,
  X509SVIDResponse,
} from '../../sds/proto/generated/workload';
import type { Daemon } from '../support/daemon';
import { type Fact, type FactSource, startFactSource } from '../support/peer-facts';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { createWorkloadClient, type WorkloadStream } from '../support/workload-client';

// Clients of the Workload API as programs in other languages are made with them, each with what its library does by itself. go-spiffe has
// a file of its own. Each gets a token and has it validated, verifies its certificate by its bundle, and sees a rotation and a restart.

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const PYTHON = resolve(__dirname, 'pyspiffe');

testWith('javaspiffe')(
  'field B1 java-spiffe, on grpc-java, is served over a rotation and a restart',
  () => watchedBy((socket) => startFactSource([peerPath('javaspiffe')!], socket)),
);

testWith('pyspiffe')('py-spiffe is served over a rotation and a restart', () =>
  watchedBy((socket) => startFactSource([peerPath('pyspiffe')!, `${PYTHON}/pyspiffe.py`], socket)),
);

testWith('pyspiffe')(
  'grpcio of Python, asynchronous, is served over a rotation and a restart',
  () =>
    watchedBy((socket) => startFactSource([peerPath('pyspiffe')!, `${PYTHON}/grpcio.py`], socket)),
);

testWith('rustspiffe')('the crate spiffe, on tonic, is served over a rotation and a restart', () =>
  watchedBy((socket) => startFactSource([peerPath('rustspiffe')!], socket)),
);

test('@grpc/grpc-js is served over a rotation and a restart', () => watchedBy(startGrpcJs));

async function watchedBy(start: (socketPath: string) => FactSource): Promise<void> {
  const dir = tempDir();
  const identity = [
    '--trust-domain',
    'cluster.local',
    '--namespace',
    'shop',
    '--service-account',
    'cart',
  ];
  const agent = testDaemon({ dir, identity });
  await agent.ready();
  const client = start(agent.sdsSocket);
  try {
    expect(await client.next()).toEqual({ token: ID });
    await sees(client, await serialOf(agent));
    await agent.command('rotate', '--wait');
    await sees(client, await serialOf(agent));
    await agent.stop();
    const restarted = testDaemon({ dir, identity });
    await restarted.ready();
    await sees(client, await serialOf(restarted));
  } finally {
    await client.stop();
  }
}

async function serialOf(agent: Daemon): Promise<string> {
  return (await agent.status()).workloads[0]!.certificate!.serial.replace(/^0+/, '');
}

/** Whoever comes again may be told once more what it knows. */
async function sees(client: FactSource, serial: string): Promise<void> {
  let fact: Fact;
  do {
    fact = await client.next();
    expect(fact).toEqual({ id: ID, serial: expect.any(String) });
  } while (fact.serial !== serial);
}

/** Undefined where the stream has ended, which is a moment to wait before the next. */
const answerOf = (stream: WorkloadStream<X509SVIDResponse>) =>
  stream
    .next()
    .catch(() => new Promise<undefined>((done) => setTimeout(() => done(undefined), 100)));

/** What the programs in other languages do, in this process. */
function startGrpcJs(socketPath: string): FactSource {
  const client = createWorkloadClient(socketPath);
  const facts = (async function* () {
    const asked = JWTSVIDRequest.encode({ audience: ['shop'], spiffeId: '' }).finish();
    const { svids } = await client.call('FetchJWTSVID', asked, (bytes) =>
      JWTSVIDResponse.decode(bytes),
    );
    const shown = ValidateJWTSVIDRequest.encode({
      audience: 'shop',
      svid: svids[0]!.svid,
    }).finish();
    yield {
      token: (
        await client.call('ValidateJWTSVID', shown, (bytes) =>
          ValidateJWTSVIDResponse.decode(bytes),
        )
      ).spiffeId,
    };
    for (;;) {
      const stream = client.stream('FetchX509SVID', (bytes) => X509SVIDResponse.decode(bytes));
      for (let update = await answerOf(stream); update; update = await answerOf(stream))
        yield certificateOf(update.svids[0]!);
    }
  })();
  return {
    next: async () => (await facts.next()).value as Fact,
    stop: async () => {
      client.close();
      return { code: 0, stderr: '' };
    },
  };
}

function certificateOf({ x509Svid, bundle }: X509SVIDResponse['svids'][number]): Fact {
  const [leaf, root] = [new X509Certificate(x509Svid), new X509Certificate(bundle)];
  expect(leaf.checkIssued(root) && leaf.verify(root.publicKey)).toBe(true);
  return {
    id: leaf.subjectAltName?.replace('URI:', ''),
    serial: leaf.serialNumber.toLowerCase().replace(/^0+/, ''),
  };
}
