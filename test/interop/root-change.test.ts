import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect } from '@jest/globals';
import { createCaTestClient, makeRequest } from '../support/ca-server';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';
import { caOf, type RootChange } from '../support/root-change';

const run = promisify(execFile);

/** TLS clients that none of us wrote; each says whether it takes the server of an address by the roots of a file. */
const CLIENTS = {
  openssl: async (address: string, roots: string) => {
    const args = [
      's_client',
      '-connect',
      address,
      '-verify_ip',
      '127.0.0.1',
      '-CAfile',
      roots,
      '-verify_return_error',
      '-alpn',
      'h2',
      '-brief',
    ];
    const going = run('openssl', [...args, '-no-CApath', '-no-CAstore']);
    going.child.stdin!.end();
    return going.then(
      () => true,
      ({ stderr }: { stderr: string }) => {
        expect(stderr).toMatch(/verif|self.signed|certificate/i);
        return false;
      },
    );
  },
  go: async (address: string, roots: string) =>
    (await run(peerPath('goverify')!, ['dial', address, roots])).stdout.startsWith('passed'),
  grpc: async (address: string, roots: string) => {
    const client = createCaTestClient(address, readFileSync(roots));
    // Unauthenticated is said by a server that was believed; unavailable is what no handshake brings.
    const { code } = await client.create((await makeRequest()).csrDer);
    client.close();
    return code === 16;
  },
};

/** Which clients take the server, by the roots of each file. */
async function verdicts({
  address,
  copies,
}: RootChange): Promise<Record<string, readonly boolean[]>> {
  const asked = Object.entries(copies).map(async ([name, path]) => {
    const answers = await Promise.all(
      Object.values(CLIENTS).map((client) => client(address, path)),
    );
    return [name, answers] as const;
  });
  return Object.fromEntries(await Promise.all(asked));
}

const [YES, NO] = [
  [true, true, true],
  [false, false, false],
];

testWith('goverify')(
  'field 14 OpenSSL, Go and grpc-js take ca serve by either root until the old one is retired',
  async () => {
    const change = await caOf();
    await change.add();
    expect(await verdicts(change)).toEqual({ old: YES, new: NO });
    await change.activate();
    expect(await verdicts(change)).toEqual({ old: YES, new: YES });
    await change.retire();
    expect(await verdicts(change)).toEqual({ old: NO, new: YES });
  },
);

testWith('goverify')(
  'field 14 as well after a second change before the first root is retired, and after a step back',
  async () => {
    const change = await caOf();
    await change.add();
    await change.activate();
    const first = { ...change.copies };
    await change.add();
    await change.activate();
    const copies = { oldest: first.old!, second: first.new!, third: change.copies.new! };
    const all = { oldest: YES, second: YES, third: YES };
    expect(await verdicts({ ...change, copies })).toEqual(all);
    await change.activate(change.ids.at(-2));
    const { oldest, second } = await verdicts({ ...change, copies });
    // Of the two that certify the second signer now OpenSSL follows the first only. Nobody's copy has the third root and none before it.
    expect({ oldest, second }).toEqual({ oldest: YES, second: YES });
  },
);
