import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseCertificate } from '../../agent/identity/certificate';
import { isKubeStatus } from '../../agent/kube/kube-error';
import { type Daemon, startDaemon } from '../support/daemon';
import { deployPath, kustomize, objectsIn } from '../support/deploy';
import { fetchText } from '../support/fetch-text';
import { type Kube, type KubeObject, startKube } from '../support/kube';
import { underLoad } from '../support/load';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const RESTRICTED = { 'pod-security.kubernetes.io/enforce': 'restricted' };
const ASKED = { 'keyturn.dev/inject': 'true' };
/** Of an application that keeps to the standard itself. */
const STRICT = {
  allowPrivilegeEscalation: false,
  capabilities: { drop: ['ALL'] },
  runAsNonRoot: true,
  runAsUser: 1000,
  seccompProfile: { type: 'RuntimeDefault' },
};
const MAIN = { name: 'main', image: 'none', securityContext: STRICT };

describeWith('kube', 'kustomize')(
  'keyturn webhook, by its manifest, in front of a real API server',
  () => {
    let kube: Kube;
    let webhook: Daemon;
    let address: string;
    let health: string;

    beforeAll(async () => {
      kube = await startKube();
      await kube.apply(readFileSync(deployPath('namespace/namespace.yaml'), 'utf8'));
      await kube.apply(kustomize('webhook'));
      await namespace('shop', { ...ASKED, ...RESTRICTED });
      await namespace('bank', RESTRICTED);
      await namespace('lab', ASKED);
      await namespace('closed', { 'keyturn.dev/inject': 'false' });
      await start();
    });
    afterAll(async () => {
      await webhook?.kill('SIGKILL');
      await kube?.stop();
    });

    async function namespace(name: string, labels: object) {
      await kube.namespace(name, 'default');
      await kube.api.request('PATCH', `/api/v1/namespaces/${name}`, {
        body: { metadata: { labels } },
      });
    }

    /** The command line of the manifest with its service account, on loopback; the configuration points there, as there are no services here. */
    async function start() {
      const objects = objectsIn(kustomize('webhook'));
      const { template } = objects.find(({ kind }) => kind === 'Deployment')!.spec;
      const args: string[] = template.spec.containers[0].args;
      const kubeconfig = kube.writeKubeconfig({
        token: await kube.token('keyturn', 'keyturn-webhook'),
      });
      const own = [
        '--listen',
        '127.0.0.1:0',
        '--admin-address',
        '127.0.0.1:0',
        '--kubeconfig',
        kubeconfig,
        '--namespace',
        'keyturn',
      ];
      const at = args.indexOf('--');
      webhook = startDaemon({
        dir: tempDir(),
        args: [...args.slice(0, at), ...own, ...args.slice(at)],
      });
      const started = await webhook.event('webhook started');
      [address, health] = [String(started.address), String(started.admin)];
      const configuration = objects.find(({ kind }) => kind === 'MutatingWebhookConfiguration')!;
      for (const each of configuration.webhooks)
        each.clientConfig = { url: `https://${address}/inject` };
      await kube.apply(JSON.stringify(configuration));
      await until(
        'the webhook to be ready',
        async () => (await fetchText(`http://${health}/healthz/ready`)).status === 200,
      );
    }

    let count = 0;
    const podOf = (metadata: object, spec: object) => {
      count += 1;
      return {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: `pod-${count}`, ...metadata },
        spec: { containers: [MAIN], ...spec },
      };
    };
    const make = (where: string, metadata: object = {}, spec: object = {}, query = '') =>
      kube.api.request<KubeObject>('POST', `/api/v1/namespaces/${where}/pods${query}`, {
        body: podOf(metadata, spec),
      });
    const has = ({ spec }: KubeObject) =>
      (spec.initContainers ?? []).some(({ name }: KubeObject) => name === 'keyturn');

    test('a pod of a labelled namespace gets the agent, and keeps to the Pod Security Standard restricted', async () => {
      const { metadata, spec } = await make('shop');
      expect(metadata.annotations).toMatchObject({ 'keyturn.dev/injected': 'true' });
      expect(spec.initContainers).toMatchObject([
        {
          name: 'keyturn',
          restartPolicy: 'Always',
          args: expect.arrayContaining([
            'run',
            '--ca=istiod',
            '--ca-address=keyturn-ca.keyturn.svc:15012',
          ]),
        },
      ]);
      expect(spec.containers).toMatchObject([{ name: 'main', image: 'none' }]);
      const volumes = Object.fromEntries(spec.volumes.map((each: KubeObject) => [each.name, each]));
      expect(volumes['keyturn-token'].projected.sources).toMatchObject([
        { serviceAccountToken: { audience: 'istio-ca' } },
      ]);
      expect(volumes['keyturn-root'].configMap).toMatchObject({ name: 'istio-ca-root-cert' });
      expect(volumes['keyturn-socket'].emptyDir).toMatchObject({ medium: 'Memory' });
      // The standard is in force: without it this would not be refused.
      await expect(
        make('shop', {}, { containers: [{ name: 'main', image: 'none' }] }),
      ).rejects.toMatchObject({ status: 403 });
    });

    test("with the agent's command line as it stands in such a pod, and the pod's token, the authority certifies the pod's service account", async () => {
      await kube.apply(kustomize('ca'));
      const kubeconfig = kube.writeKubeconfig({ token: await kube.token('keyturn', 'keyturn-ca') });
      const ports = [
        '--listen',
        '127.0.0.1:0',
        '--admin-address',
        '127.0.0.1:0',
        '--authenticators',
        'token-review',
      ];
      const state = [
        '--state',
        'kubernetes',
        '--namespace',
        'keyturn',
        '--kubeconfig',
        kubeconfig,
        '--log-format',
        'json',
      ];
      const home = tempDir();
      const ca = testDaemon({
        dir: home,
        args: ['ca', 'serve', '--ca-dir', './ca', ...ports, ...state],
      });
      const at = (await ca.event('ca server started')).address;

      const { metadata, spec } = await make('shop');
      const [agent] = spec.initContainers;
      const { audience } = spec.volumes.find(({ name }: KubeObject) => name === 'keyturn-token')
        .projected.sources[0].serviceAccountToken;
      const dir = tempDir();
      writeFileSync(
        join(dir, 'token'),
        await kube.token('shop', spec.serviceAccountName, { audiences: [audience], pod: metadata }),
      );
      const source = agent.args
        .slice(1)
        .map((flag: string) => flag.replace(/^--ca-address=.*/, `--ca-address=${at}`));
      const files = ['--token', 'token', '--ca-root', join(home, 'ca/root-cert.pem')];
      // What Kubernetes puts into these from the pod's fields, as its env asks.
      expect(agent.env.map(({ name }: KubeObject) => name)).toEqual([
        'POD_NAMESPACE',
        'SERVICE_ACCOUNT',
      ]);
      const env = { POD_NAMESPACE: 'shop', SERVICE_ACCOUNT: spec.serviceAccountName };
      const running = testDaemon({ dir, source: [...source, ...files], identity: [], env });
      expect((await running.ready()).workloads[0]).toMatchObject({
        id: 'spiffe://cluster.local/ns/shop/sa/default',
      });
    });

    test('a pod that the API server has filled in is left as it is when it is made again', async () => {
      const { metadata, spec } = await make('shop');
      const again = await make('shop', { annotations: metadata.annotations }, spec);
      expect(again.spec).toEqual(spec);
    });

    test.each([
      [
        'with the label false in a labelled namespace',
        'shop',
        { labels: { 'keyturn.dev/inject': 'false' } },
        false,
      ],
      [
        'with the annotation false in a labelled namespace',
        'shop',
        { annotations: { 'keyturn.dev/inject': 'false' } },
        false,
      ],
      ['with the label true in a namespace that says nothing', 'bank', { labels: ASKED }, true],
      ['without a label there', 'bank', {}, false],
      ['with the label true in a namespace that says false', 'closed', { labels: ASKED }, false],
      [
        'of a controller, with a name to come',
        'shop',
        { name: undefined, generateName: 'cart-' },
        true,
      ],
    ])('a pod %s', async (_, where, metadata, injected) => {
      expect(has(await make(where, metadata))).toBe(injected);
    });

    test.each(['kube-system', 'keyturn'])(
      'no pod of %s passes through it, whatever its labels say',
      async (where) => {
        await namespace(where, ASKED);
        await kube.namespace(where, 'default');
        expect(has(await make(where, { labels: ASKED }))).toBe(false);
      },
    );

    test('a pod that cannot have the agent is denied with field, reason and remedy; and made where it asks to be left alone', async () => {
      const refused = await make('lab', {}, { hostNetwork: true }).catch((caught) => caught);
      expect(isKubeStatus(refused, 422)).toBe(true);
      expect(refused.message).toMatch(
        /admission webhook "namespace.inject.keyturn.dev" denied the request: .*spec\.hostNetwork must not be true.*keyturn\.dev\/inject=false/,
      );
      expect(
        has(
          await make('lab', { labels: { 'keyturn.dev/inject': 'false' } }, { hostNetwork: true }),
        ),
      ).toBe(false);
    });

    test('a dry run is answered alike and leaves nothing', async () => {
      const pod = await make('shop', { name: 'not-kept' }, {}, '?dryRun=All');
      expect(has(pod)).toBe(true);
      await expect(
        kube.api.request('GET', '/api/v1/namespaces/shop/pods/not-kept'),
      ).rejects.toMatchObject({ status: 404 });
      expect(
        await webhook.event('pod injected', ({ pod: name }) => name === 'not-kept'),
      ).toMatchObject({ dryRun: true, namespace: 'shop' });
    });

    test('what its author should know is said, and counted with the rest', async () => {
      await make('lab', { name: 'shared' }, { shareProcessNamespace: true });
      const { warnings } = await webhook.event(
        'pod injected',
        ({ pod: name }) => name === 'shared',
      );
      expect(warnings).toEqual([
        expect.stringMatching(/^keyturn: spec\.shareProcessNamespace is true/),
      ]);
      const { body } = await fetchText(`http://${health}/metrics`);
      expect(body).toMatch(/^keyturn_webhook_requests_total\{outcome="injected"\} [1-9]/m);
      expect(body).toMatch(/^keyturn_webhook_requests_total\{outcome="denied"\} [1-9]/m);
      expect(body).toMatch(/^keyturn_ready 1$/m);
    });

    test('its certificate is for its service, by a root of its own', async () => {
      const { host, port } = new URL(`https://${address}`);
      const shown = await new Promise<Uint8Array>((resolve, reject) => {
        const socket = connect(
          { host: host.split(':')[0]!, port: Number(port), rejectUnauthorized: false },
          () => {
            resolve(socket.getPeerX509Certificate()!.raw);
            socket.destroy();
          },
        );
        socket.on('error', reject);
      });
      const { subjectAltName, notAfterAt } = parseCertificate(shown);
      expect(subjectAltName?.names).toContainEqual({
        kind: 'dns',
        value: 'keyturn-webhook.keyturn.svc',
      });
      expect(notAfterAt).toBeLessThan(Date.now() + 25 * 3_600_000);
    });

    test('strangers at its port who say nothing, half of something or something without end are hung up on, and hold up nobody', async () => {
      const port = Number(new URL(`https://${address}`).port);
      const HEAD = 'POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
      const strangers = [
        '',
        'POST /inject',
        `${HEAD}Content-Length: 100\r\n\r\n{`,
        `${HEAD}Content-Length: 8000000\r\n\r\n${' '.repeat(7_999_999)}`,
      ];
      const ended = strangers.map(
        (text) =>
          new Promise<void>((resolve) => {
            const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false }, () =>
              socket.write(text),
            );
            socket.on('error', () => undefined).on('close', () => resolve());
            socket.resume();
          }),
      );
      expect(has(await make('shop'))).toBe(true);
      await Promise.all(ended);
      expect(has(await make('shop'))).toBe(true);
    });

    test('nothing of all that made it warn of anything but the denial, and it ends in time', async () => {
      const troubles = webhook.events.filter(
        ({ level, event }) => (level === 'warn' || level === 'error') && event !== 'pod denied',
      );
      expect(troubles).toEqual([]);
      const startedAt = Date.now();
      expect(await webhook.stop()).toMatchObject({ code: 0, stdout: '' });
      expect(Date.now() - startedAt).toBeLessThan(underLoad(2_000));
      // While nobody answers, pods that asked are not made without it, and others are made as ever.
      await expect(make('shop')).rejects.toMatchObject({
        message: expect.stringContaining('failed calling webhook "namespace.inject.keyturn.dev"'),
      });
      expect(has(await make('bank'))).toBe(false);
      await start();
      expect(has(await make('shop'))).toBe(true);
    });
  },
);
