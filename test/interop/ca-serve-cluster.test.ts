import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { get } from 'node:https';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseCertificates, uriNames } from '../../agent/identity/certificate';
import { createCaTestClient, makeRequest } from '../support/ca-server';
import { watchCertificates } from '../support/certificate-watch';
import { TEST_ID } from '../support/certs';
import { type Kube, startKube } from '../support/kube';
import { underLoad } from '../support/load';
import { describeWith, testWith } from '../support/peers';
import { startPilotAgent } from '../support/pilot-agent';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { makeTokenIssuer } from '../support/tokens';
import { until } from '../support/until';

const UNAUTHENTICATED = 16;
const TOKEN = 'var/run/secrets/tokens/istio-token';

describeWith('kube')('keyturn ca serve for the service accounts of a cluster', () => {
  let kube: Kube;
  let kubeconfig: string;
  let jwks: string;
  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart');
    await kube.namespace('keyturn-system', 'ca');
    await kube.apply(MAY_REVIEW_TOKENS);
    const token = await kube.token('keyturn-system', 'ca');
    kubeconfig = kube.writeKubeconfig({ token });
    jwks = join(tempDir(), 'jwks.json');
    writeFileSync(jwks, await publishedKeys(kube, token));
  });
  afterAll(() => kube?.stop());

  async function serveCa(...authenticators: readonly string[]) {
    const dir = tempDir();
    const ports = ['--listen', '127.0.0.1:0', '--admin-address', '127.0.0.1:0'];
    const flags = [
      '--trust-domain',
      'cluster.local',
      '--audit-log',
      'audit.log',
      '--log-format',
      'json',
      ...authenticators,
    ];
    const daemon = testDaemon({
      dir,
      args: ['ca', 'serve', '--ca-dir', './ca', ...ports, ...flags],
    });
    const address = String((await daemon.event('ca server started')).address);
    const methods = async () =>
      (await readFile(join(dir, 'audit.log'), 'utf8'))
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).method);
    return { daemon, address, root: join(dir, 'ca/root-cert.pem'), methods };
  }

  const byReview = () => [
    '--authenticators',
    'client-certificate,token-review',
    '--kubeconfig',
    kubeconfig,
  ];
  const byKeys = () => [
    '--authenticators',
    'client-certificate,oidc',
    '--oidc-issuer',
    ISSUER,
    '--jwks',
    jwks,
  ];

  test.each([
    ['has the API server review', 'token-review', byReview],
    ["verifies with the API server's keys", 'oidc', byKeys],
  ])(
    'certifies an agent by a token that it %s, and again by the certificate',
    async (_, method, authenticators) => {
      const ca = await serveCa(...authenticators());
      const dir = tempDir();
      mkdirSync(dirname(join(dir, TOKEN)), { recursive: true });
      writeFileSync(
        join(dir, TOKEN),
        await kube.token('shop', 'cart', { audiences: ['istio-ca'] }),
      );
      const agent = testDaemon({
        dir,
        source: ['--ca', 'istiod', '--ca-address', ca.address, '--ca-root', ca.root],
      });
      expect((await agent.ready()).workloads[0]).toMatchObject({
        id: TEST_ID,
        certificate: { warnings: [] },
      });
      rmSync(join(dir, TOKEN));
      expect(await agent.command('rotate')).toMatchObject({ code: 0 });
      expect(await ca.methods()).toEqual([method, 'client-certificate']);
    },
  );

  test('answers a new pod within 2 s while strangers show it new tokens as fast as they can', async () => {
    const ca = await serveCa(...byReview());
    const root = await readFile(ca.root);
    const { csrDer } = await makeRequest();
    const stranger = makeTokenIssuer();
    const strangers = Array.from({ length: 4 }, () => createCaTestClient(ca.address, root));
    const codes = new Map<number, number>();
    let flooding = true;
    const flood = strangers.flatMap((client) =>
      Array.from({ length: 25 }, async () => {
        while (flooding) {
          const { code } = await client.create(csrDer, {
            token: stranger.token({ claims: { iss: ISSUER, jti: randomUUID() } }),
          });
          codes.set(code, (codes.get(code) ?? 0) + 1);
        }
      }),
    );
    await until('a flood', async () => (codes.get(UNAUTHENTICATED) ?? 0) > 200);
    const pod = createCaTestClient(ca.address, root);
    const token = await kube.token('shop', 'cart', { audiences: ['istio-ca'] });
    const startedAt = performance.now();
    expect(await pod.create(csrDer, { token })).toMatchObject({ code: 0 });
    expect(performance.now() - startedAt).toBeLessThan(underLoad(2_000));
    flooding = false;
    await Promise.all(flood);
    // None was worth a question to the API server, whose limits would have shown.
    expect([...codes.keys()]).toEqual([UNAUTHENTICATED]);
    for (const client of [...strangers, pod]) client.close();
  });

  testWith('pilot-agent').each([
    ['P-256', 'ECDSA'],
    ['RSA', ''],
  ])(
    "Istio's own agent gets certificates for its keys of %s there and serves them, one after the other",
    async (_, algorithm) => {
      const ca = await serveCa(...byReview());
      const root = await readFile(ca.root);
      const token = await kube.token('shop', 'cart', { audiences: ['istio-ca'] });
      const env = { SECRET_TTL: '10s', ECC_SIGNATURE_ALGORITHM: algorithm };
      const agent = await startPilotAgent({ caAddress: ca.address, rootPem: root, token, env });
      const proxy = watchCertificates(agent.sdsSocket);
      await until('two certificates', async () => agent.running() && proxy.seen.length >= 2);
      const [ours] = parseCertificates(root, 'root');
      for (const { leaf } of proxy.seen) {
        expect(leaf.issuerDer).toEqual(ours!.subjectDer);
        expect(uriNames(leaf)).toEqual([TEST_ID]);
      }
      expect((await proxy.roots()).map(({ sha256 }) => sha256)).toEqual([ours!.sha256]);
      expect(new Set(await ca.methods())).toEqual(new Set(['token-review']));
      proxy.close();
      await agent.stop();
    },
  );
});

const ISSUER = 'https://kubernetes.default.svc.cluster.local';

/** What the API server publishes for whoever verifies its tokens without asking it. */
function publishedKeys(kube: Kube, token: string): Promise<string> {
  return new Promise((done, failed) => {
    const headers = { authorization: `Bearer ${token}` };
    const request = get(
      `${kube.url}/openid/v1/jwks`,
      { ca: readFileSync(kube.caFile), headers },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.on('end', () =>
          response.statusCode === 200 ? done(body) : failed(new Error(body)),
        );
      },
    );
    request.on('error', failed);
  });
}

const MAY_REVIEW_TOKENS = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: keyturn-ca-reviews-tokens }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:auth-delegator }
subjects: [{ kind: ServiceAccount, namespace: keyturn-system, name: ca }]
`;
