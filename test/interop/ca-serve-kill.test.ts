import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseCertificates } from '../../agent/identity/certificate';
import {
  type CallOutcome,
  type CaTestClient,
  type ClientIdentity,
  createCaTestClient,
  makeRequest,
} from '../support/ca-server';
import { fetchText } from '../support/fetch-text';
import { type Kube, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const FULL = process.env.KEYTURN_TEST === 'full';
const NAMESPACE = 'keyturn';
const JOINER = 'spiffe://cluster.local/joiner';
const LOAD = 'spiffe://cluster.local/load';
/** Join tokens that all replicas are shown at once, some of them while one of the three is killed. */
const TOKENS = FULL ? 60 : 18;
/** Callers that renew without a pause at each replica. */
const CALLERS = 8;
/** Certificates that they get before the kill, and again after it. */
const CERTIFICATES = FULL ? 500 : 150;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

describeWith('kube')(
  'three keyturn ca serve on one cluster, one of which is killed under load',
  () => {
    let kube: Kube;
    let state: readonly string[];
    let home: string;

    beforeAll(async () => {
      kube = await startKube();
      for (const each of ['namespace/namespace.yaml', 'ca/rbac.yaml']) {
        await kube.apply(readFileSync(join(__dirname, '../../scripts/deploy', each), 'utf8'));
      }
      const kubeconfig = kube.writeKubeconfig({ token: await kube.token(NAMESPACE, 'keyturn-ca') });
      state = ['--state', 'kubernetes', '--namespace', NAMESPACE, '--kubeconfig', kubeconfig];
      home = tempDir();
      expect(
        await testDaemon({ dir: home, args: ['ca', 'init', '--ca-dir', './ca'] }).finished,
      ).toMatchObject({ code: 0 });
    });
    afterAll(() => kube?.stop());

    /** With a copy of the one signer, as a mounted Secret would be. */
    async function startReplica() {
      const dir = tempDir();
      cpSync(join(home, 'ca'), join(dir, 'ca'), { recursive: true });
      chmodSync(join(dir, 'ca'), 0o700);
      const flags = [
        '--listen',
        '127.0.0.1:0',
        '--admin-address',
        '127.0.0.1:0',
        '--log-format',
        'json',
        '--rate-per-identity',
        '0',
      ];
      const daemon = testDaemon({
        dir,
        args: ['ca', 'serve', '--ca-dir', './ca', ...flags, ...state],
      });
      const { address, admin } = await daemon.event('ca server started');
      const connect = (identity?: ClientIdentity) =>
        createCaTestClient(String(address), readFileSync(join(home, 'ca/root-cert.pem')), identity);
      return {
        daemon,
        connect,
        admin: String(admin),
        ca: (...args: readonly string[]) =>
          daemon.command('ca', ...args, '--ca-dir', './ca', ...state),
      };
    }
    type Replica = Awaited<ReturnType<typeof startReplica>>;

    async function makeToken(replica: Replica, id: string): Promise<string> {
      const { code, stdout } = await replica.ca('token', 'create', '--spiffe-id', id);
      expect(code).toBe(0);
      return stdout.trim();
    }

    async function buy(client: CaTestClient, id: string, token?: string): Promise<CallOutcome> {
      const { csrDer } = await makeRequest(id);
      return client.create(csrDer, token === undefined ? {} : { token });
    }

    const serialOf = ({ chain }: CallOutcome) =>
      parseCertificates(Buffer.from(chain[0]!), 'leaf')[0]!.serial;

    /** What `ca revoke` of an identity finds in the register, all of it. */
    async function registerOf(replica: Replica, id: string): Promise<string[]> {
      const { code, stdout } = await replica.ca('revoke', id, '--output', 'json');
      expect(code).toBe(0);
      return JSON.parse(stdout).revoked.map(({ serial }: { serial: string }) => serial);
    }

    test(
      'a join token wins once across them, no certificate is issued twice, and none that was handed out is missing in the register',
      async () => {
        const replicas = await Promise.all([startReplica(), startReplica(), startReplica()]);
        const [victim, ...others] = replicas as [Replica, Replica, Replica];
        const tokens: string[] = [];
        while (tokens.length < TOKENS)
          tokens.push(...(await Promise.all(replicas.map((each) => makeToken(each, JOINER)))));

        // One identity for the load, bought with a token of its own.
        const { key, csrDer } = await makeRequest(LOAD);
        const first = await others[0]
          .connect()
          .create(csrDer, { token: await makeToken(victim, LOAD) });
        expect(first).toMatchObject({ code: 0 });
        const identity = {
          key,
          certificatesDer: parseCertificates(Buffer.from(first.chain[0]!), 'leaf').map(
            ({ der }) => der,
          ),
        };

        const renewed: string[] = [serialOf(first)];
        let stopped = false;
        const callers = replicas.flatMap((replica) =>
          Array.from({ length: CALLERS }, async () => {
            const client = replica.connect(identity);
            for (let alive = true; alive && !stopped; ) {
              const outcome = await buy(client, LOAD);
              if (outcome.code === 0) renewed.push(serialOf(outcome));
              else expect([replica === victim, outcome.code]).toEqual([true, UNAVAILABLE]);
              alive = outcome.code === 0;
            }
            client.close();
          }),
        );
        await until('the load', async () => renewed.length > CERTIFICATES);

        const shown = replicas.map((replica) => ({ replica, client: replica.connect() }));
        const joined: string[] = [];
        /** Shows one token to every replica at once; the answers in their order. */
        const race = async (token: string) => {
          const outcomes = await Promise.all(shown.map(({ client }) => buy(client, JOINER, token)));
          joined.push(...outcomes.filter(({ code }) => code === 0).map(serialOf));
          return outcomes.map(({ code }) => code);
        };
        const early = await Promise.all(tokens.slice(0, TOKENS / 3).map(race));
        for (const codes of early)
          expect([...codes].sort((a, b) => a - b)).toEqual([0, UNAUTHENTICATED, UNAUTHENTICATED]);

        const during = tokens.slice(TOKENS / 3, (2 * TOKENS) / 3).map(race);
        await victim.daemon.kill('SIGKILL');
        for (const [atVictim, ...elsewhere] of await Promise.all(during)) {
          const won = [atVictim, ...elsewhere].filter((code) => code === 0).length;
          // One that the victim took with it is good for nobody; it can only be one whose answer from there got lost.
          expect(won === 0 ? atVictim : won).toBe(won === 0 ? UNAVAILABLE : 1);
        }
        const before = renewed.length;
        for (const codes of await Promise.all(tokens.slice((2 * TOKENS) / 3).map(race))) {
          expect([codes[0], ...codes.slice(1).sort((a, b) => a - b)]).toEqual([
            UNAVAILABLE,
            0,
            UNAUTHENTICATED,
          ]);
        }
        await until('the load after the kill', async () => renewed.length > before + CERTIFICATES);
        stopped = true;
        await Promise.all(callers);
        for (const { client } of shown) client.close();

        for (const token of tokens) expect(await spend(others[1], token)).toBe(UNAUTHENTICATED);
        for (const [handedOut, id] of [
          [joined, JOINER],
          [renewed, LOAD],
        ] as const) {
          const register = await registerOf(others[0], id);
          expect(new Set(register).size).toBe(register.length);
          expect(new Set(handedOut).size).toBe(handedOut.length);
          expect(handedOut.filter((serial) => !register.includes(serial))).toEqual([]);
        }
        for (const { admin } of others) {
          await until('a CRL that names all of them', async () => {
            const { body } = await fetchText(`http://${admin}/crl.pem`);
            const { stdout } = spawnSync('openssl', ['crl', '-noout', '-text'], {
              input: body,
              encoding: 'utf8',
              maxBuffer: 1 << 26,
            });
            const listed = stdout.toLowerCase();
            return [...joined, ...renewed].every((serial) => listed.includes(serial));
          });
        }
      },
      FULL ? 180_000 : 60_000,
    );

    async function spend(replica: Replica, token: string): Promise<number> {
      const client = replica.connect();
      const { code } = await buy(client, JOINER, token);
      client.close();
      return code;
    }
  },
);
