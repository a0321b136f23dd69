import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parse, parseAllDocuments } from 'yaml';
import { runKeyturn } from '../support/daemon';
import { type Kube, type KubeObject, startKube } from '../support/kube';
import { peerPath } from '../support/peer-path';
import { describeWith } from '../support/peers';
import { follow, recipeOf } from '../support/recipe';
import { tempDir } from '../support/temp-dir';

const JOIN = ['--join', 'istio-proxy'];
const EXCLUDED = 'traffic.sidecar.istio.io/excludeInboundPorts';

describeWith('istio-files')("a pod that Istio's injector has made", () => {
  const pods = test.each([
    ['with its proxy as a native sidecar', 'native-sidecar.yaml'],
    ['with its proxy as a container', 'native-sidecar-opt-out.yaml'],
    ['where a CNI plugin leads its traffic', 'hello.yaml.cni'],
  ]);

  pods(
    '%s gets the agent in front of all, on the socket of its proxy, as the user of its proxy',
    async (_, name) => {
      const before = injectedByIstio(name);
      const { text, notes } = await inject(before, JOIN);
      const [was, is] = [podOf(before), podOf(text)];
      const [agent, ...others] = [...is.spec.initContainers, ...is.spec.containers];
      expect(agent.name).toBe('keyturn');
      expect(others).toEqual([...(was.spec.initContainers ?? []), ...was.spec.containers]);
      const proxy = others.find((each: KubeObject) => each.name === 'istio-proxy');
      const socket = proxy.volumeMounts.find(
        (each: KubeObject) => each.mountPath === '/var/run/secrets/workload-spiffe-uds',
      );
      expect(agent.volumeMounts).toContainEqual({ name: socket.name, mountPath: socket.mountPath });
      expect(agent.securityContext.runAsUser).toBe(proxy.securityContext.runAsUser);
      expect(agent).toMatchObject({ restartPolicy: 'Always', ports: [{ containerPort: 15_022 }] });
      expect(agent.args).toContain('--admin-address=0.0.0.0:15022');
      expect(agent.startupProbe.httpGet).toEqual({ path: '/healthz/ready', port: 15_022 });
      expect(notes).toContain(`${EXCLUDED}"]: should have 15022 before Istio injects`);
      expect((await inject(text, JOIN)).text).toBe(text);
    },
  );

  pods('%s and lets probes of the agent by is taken without a word about them', async (_, name) => {
    const others = injectedByIstio(name).replace(
      /^ *traffic.sidecar.istio.io\/excludeInboundPorts:.*\n/m,
      '',
    );
    const annotated = others.replace(/^( *)annotations:$/m, `$&\n$1  ${EXCLUDED}: "9000,15022"`);
    expect((await inject(annotated, JOIN)).notes).not.toContain(EXCLUDED);
  });

  pods('%s and knows the socket by another name gives the agent that name', async (_, name) => {
    const named = injectedByIstio(name).replace(
      /^( *)- name: CA_ADDR$/m,
      '$1- name: WORKLOAD_IDENTITY_SOCKET_FILE\n$1  value: keyturn\n$&',
    );
    const { text } = await inject(named, JOIN);
    expect(podOf(text).spec.initContainers[0].env).toContainEqual({
      name: 'WORKLOAD_IDENTITY_SOCKET_FILE',
      value: 'keyturn',
    });
    expect((await inject(text, JOIN)).text).toBe(text);
  });

  pods("%s is refused where the agent would take a port of Istio's agent", async (_, name) => {
    const path = written(injectedByIstio(name));
    const { code, stdout, stderr } = await runKeyturn(
      ['inject', '-f', path, ...JOIN, '--admin-address', '0.0.0.0:15020'],
      {
        dir: tempDir(),
      },
    );
    expect({ code, stdout }).toEqual({ code: 65, stdout: '' });
    expect(stderr).toContain("has Istio's agent, which listens on port 15020");
  });
});

describeWith('istio-files', 'kube')('the recipe for pods, followed word by word', () => {
  let kube: Kube;
  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'default');
  });
  afterAll(() => kube?.stop());

  test.each(['native-sidecar.yaml', 'hello.yaml.cni'])(
    'makes of %s what a real API server takes',
    async (name) => {
      const dir = tempDir();
      const tool = (file: string, command: string) => {
        writeFileSync(join(dir, file), `#!/bin/sh\n${command}\n`, { mode: 0o755 });
        return join(dir, file);
      };
      const programs = {
        istioctl: tool('istioctl', `cat ${written(injectedByIstio(name))}`),
        kubectl: tool('kubectl', `cat >${dir}/applied.yaml`),
      };
      const cook = follow(recipeOf('docs/beside-istio.md', 'In a pod'), {
        cwd: dir,
        env: { PATH: process.env.PATH },
        programs,
      });
      await cook.done;
      const [first] = parseAllDocuments(readFileSync(join(dir, 'applied.yaml'), 'utf8'));
      const object = first!.toJS() as KubeObject;
      object.metadata.namespace = 'shop';
      await kube.apply(JSON.stringify(object), { dryRun: true });
      await kube.apply(JSON.stringify(object));
    },
  );
});

/** What Istio's own tests want its injector to make. */
function injectedByIstio(name: string): string {
  return readFileSync(join(peerPath('istio-files')!, `${name}.injected`), 'utf8');
}

function written(manifest: string): string {
  const path = join(tempDir(), 'pod.yaml');
  writeFileSync(path, manifest);
  return path;
}

async function inject(
  manifest: string,
  flags: readonly string[],
): Promise<{ text: string; notes: string }> {
  const { code, stdout, stderr } = await runKeyturn(['inject', '-f', written(manifest), ...flags], {
    dir: tempDir(),
  });
  if (code !== 0) throw new Error(stderr);
  return { text: stdout, notes: stderr };
}

/** The pod, or the template of pods, of the first document. */
function podOf(manifest: string): KubeObject {
  const [first] = parseAllDocuments(manifest);
  const object = parse(String(first)) as KubeObject;
  return object.kind === 'Pod' ? object : object.spec.template;
}
