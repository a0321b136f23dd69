import { describe, expect, test } from '@jest/globals';
import { jsonPatch } from '../../../agent/inject/changes';
import { fieldName } from '../../../agent/inject/findings';
import { type Injection, injectPod, removeFromPod } from '../../../agent/inject/inject-pod';
import type { InjectOptions } from '../../../agent/inject/options';
import { ENVOY_BESIDE, injectOptions } from '../../support/inject';
import { applyPatch } from '../../support/json-patch';

const POD = {
  metadata: { labels: { app: 'cart' } },
  spec: { containers: [{ name: 'cart', image: 'cart:1', ports: [{ containerPort: 8080 }] }] },
};
/** A pod with an Envoy of its own, of user 101. */
const WITH_ENVOY = {
  metadata: {},
  spec: {
    containers: [
      { name: 'cart', image: 'cart:1' },
      {
        name: 'envoy',
        image: 'envoy:1',
        securityContext: { runAsUser: 101 },
        volumeMounts: [{ name: 'config', mountPath: '/etc/envoy' }],
      },
    ],
    volumes: [{ name: 'config', configMap: { name: 'envoy' } }],
  },
};
const JOIN: Partial<InjectOptions> = { envoy: { kind: 'join', container: 'envoy' } };

/** The pod as a server has it afterwards. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into pods of every kind
function patched(pod: unknown, changed: Partial<InjectOptions> = {}): any {
  const injection = injectPod(pod, injectOptions(changed));
  if (injection.kind !== 'injected') throw new Error(JSON.stringify(injection));
  const after = applyPatch(pod, jsonPatch(injection.changes));
  expect(after).toEqual(injection.after);
  return after;
}

function problems(pod: unknown, changed: Partial<InjectOptions> = {}): string[] {
  const injection: Injection = injectPod(pod, injectOptions(changed));
  if (injection.kind !== 'refused') throw new Error(`it was ${injection.kind}`);
  return injection.problems.map(({ path, rule }) => `${fieldName(path)}: ${rule}`);
}

// biome-ignore lint/suspicious/noExplicitAny: a deep change of a test's pod
function changed(pod: object, change: (pod: any) => void): object {
  const copy = structuredClone(pod);
  change(copy);
  return copy;
}

describe('a pod', () => {
  test('gets the agent as its first init container that always restarts, with all that it needs, and keeps the rest', () => {
    const { metadata, spec } = patched(
      changed(POD, (pod) => {
        pod.spec.initContainers = [{ name: 'migrate', image: 'cart:1' }];
      }),
    );
    expect(metadata).toEqual({
      labels: { app: 'cart' },
      annotations: { 'keyturn.dev/injected': 'true' },
    });
    expect(spec.containers).toEqual(POD.spec.containers);
    expect(spec.initContainers[1]).toEqual({ name: 'migrate', image: 'cart:1' });
    expect(spec.initContainers[0]).toEqual({
      name: 'keyturn',
      image: 'keyturn:1',
      restartPolicy: 'Always',
      args: ['run', '--ca=istiod', '--admin-address=0.0.0.0:15020'],
      workingDir: '/',
      env: [
        { name: 'POD_NAMESPACE', valueFrom: { fieldRef: { fieldPath: 'metadata.namespace' } } },
        {
          name: 'SERVICE_ACCOUNT',
          valueFrom: { fieldRef: { fieldPath: 'spec.serviceAccountName' } },
        },
      ],
      ports: [{ name: 'keyturn-health', containerPort: 15020 }],
      startupProbe: {
        httpGet: { path: '/healthz/ready', port: 15020 },
        periodSeconds: 1,
        failureThreshold: 600,
      },
      readinessProbe: {
        httpGet: { path: '/healthz/ready', port: 15020 },
        periodSeconds: 5,
        timeoutSeconds: 3,
      },
      livenessProbe: {
        httpGet: { path: '/healthz/live', port: 15020 },
        periodSeconds: 10,
        timeoutSeconds: 3,
      },
      resources: { requests: { cpu: '10m', memory: '48Mi' }, limits: { memory: '96Mi' } },
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 1337,
        runAsGroup: 1337,
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      },
      terminationMessagePolicy: 'FallbackToLogsOnError',
      volumeMounts: [
        { name: 'keyturn-socket', mountPath: '/var/run/secrets/workload-spiffe-uds' },
        { name: 'keyturn-run', mountPath: '/var/run/keyturn' },
        { name: 'keyturn-token', mountPath: '/var/run/secrets/tokens', readOnly: true },
        { name: 'keyturn-root', mountPath: '/var/run/secrets/istio', readOnly: true },
      ],
    });
    expect(spec.volumes).toEqual([
      { name: 'keyturn-socket', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
      { name: 'keyturn-run', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
      {
        name: 'keyturn-token',
        projected: {
          sources: [
            {
              serviceAccountToken: {
                audience: 'istio-ca',
                expirationSeconds: 3600,
                path: 'istio-token',
              },
            },
          ],
        },
      },
      {
        name: 'keyturn-root',
        configMap: {
          name: 'istio-ca-root-cert',
          items: [{ key: 'root-cert.pem', path: 'root-cert.pem' }],
        },
      },
    ]);
  });

  test('gets it as one more container, at the end, where a plain one is asked for', () => {
    const { spec } = patched(POD, { sidecar: 'plain' });
    expect(spec.initContainers).toBeUndefined();
    expect(spec.containers.map((each: { name: string }) => each.name)).toEqual(['cart', 'keyturn']);
    expect(spec.containers[1].restartPolicy).toBeUndefined();
  });

  test('that asks the Kubernetes API gets a token for it, and neither the other token nor a root that it has no use for', () => {
    const { spec } = patched(POD, { cas: ['kubernetes-csr'], rootConfigMap: undefined });
    expect(spec.volumes.map((each: { name: string }) => each.name)).toEqual([
      'keyturn-socket',
      'keyturn-run',
      'keyturn-api',
    ]);
    expect(spec.initContainers[0].volumeMounts[2]).toEqual({
      name: 'keyturn-api',
      mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
      readOnly: true,
    });
  });

  test('that is injected again does not change, and with other options is as if injected with those alone', () => {
    const variants: Partial<InjectOptions>[] = [
      {},
      { sidecar: 'plain' },
      { image: 'keyturn:2', settings: { ca: 'istiod', ttl: '1h' } },
      { cas: ['kubernetes-csr'], rootConfigMap: undefined },
      JOIN,
      { envoy: ENVOY_BESIDE },
      { envoy: ENVOY_BESIDE, sidecar: 'plain' },
      {
        adminPort: 15_022,
        audience: 'other',
        resources: { cpuRequest: '1', memoryRequest: '1Gi', cpuLimit: '2', memoryLimit: '2Gi' },
      },
    ];
    for (const first of variants) {
      const once = patched(WITH_ENVOY, first);
      expect(injectPod(once, injectOptions(first))).toMatchObject({
        kind: 'injected',
        changes: [],
      });
      for (const second of variants)
        expect(patched(once, second)).toEqual(patched(WITH_ENVOY, second));
    }
  });

  test('keeps what the API server and others have added to our containers', () => {
    const filled = changed(patched(POD), ({ spec }) => {
      const [agent] = spec.initContainers;
      agent.imagePullPolicy = 'Always';
      agent.terminationMessagePath = '/dev/termination-log';
      agent.readinessProbe.httpGet.scheme = 'HTTP';
      agent.readinessProbe.successThreshold = 1;
      agent.env[0].valueFrom.fieldRef.apiVersion = 'v1';
      agent.ports[0].protocol = 'TCP';
      agent.volumeMounts.push({
        name: 'kube-api-access-x',
        mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
        readOnly: true,
      });
      spec.volumes[2].projected.defaultMode = 420;
      spec.initContainers.unshift({ name: 'first', image: 'x' });
    });
    expect(injectPod(filled, injectOptions())).toMatchObject({ kind: 'injected', changes: [] });
  });

  test('is left alone where its label or annotation says so', () => {
    for (const kind of ['labels', 'annotations']) {
      const pod = { ...POD, metadata: { [kind]: { 'keyturn.dev/inject': 'false' } } };
      expect(injectPod(pod, injectOptions())).toEqual({ kind: 'left-alone' });
    }
  });

  test.each(['hostPID', 'shareProcessNamespace'])(
    'whose containers see one another by %s is injected, with a note',
    (field) => {
      const injection = injectPod(
        changed(POD, ({ spec }) => {
          spec[field] = true;
        }),
        injectOptions(),
      );
      expect(injection).toMatchObject({
        kind: 'injected',
        notes: [{ path: ['spec', field], rule: expect.stringContaining('could read its key') }],
      });
    },
  );

  test('keeps $(NAME) of a setting from being replaced by Kubernetes', () => {
    const { spec } = patched(POD, {
      settings: { ca: 'istiod', 'cluster-id': '$(POD_NAMESPACE)$x' },
    });
    expect(spec.initContainers[0].args).toContain('--cluster-id=$$(POD_NAMESPACE)$x');
  });
});

describe('an Envoy', () => {
  test('of ours stands after the agent, is configured by its arguments alone, and is probed where kubelet reaches it', () => {
    const { spec } = patched(POD, { envoy: ENVOY_BESIDE });
    const [agent, envoy] = spec.initContainers;
    expect([agent.name, envoy.name]).toEqual(['keyturn', 'keyturn-envoy']);
    expect(envoy.volumeMounts).toEqual([
      { name: 'keyturn-socket', mountPath: '/var/run/secrets/workload-spiffe-uds', readOnly: true },
    ]);
    expect(envoy.securityContext).toEqual(agent.securityContext);
    expect(envoy.startupProbe.tcpSocket).toEqual({ port: 8443 });
    const bootstrap = JSON.parse(envoy.args[envoy.args.indexOf('--config-yaml') + 1]);
    expect(bootstrap.node.id).toBe('$(POD_NAME).$(POD_NAMESPACE)');
    expect(JSON.stringify(bootstrap)).toContain(
      '"pipe":{"path":"/var/run/secrets/workload-spiffe-uds/socket"}',
    );
  });

  test('that is there already gets the socket, and the agent runs as its user', () => {
    const { spec } = patched(WITH_ENVOY, JOIN);
    expect(spec.initContainers[0].securityContext).toMatchObject({
      runAsUser: 101,
      runAsGroup: 1337,
    });
    expect(spec.containers[0]).toEqual(WITH_ENVOY.spec.containers[0]);
    expect(spec.containers[1].volumeMounts).toEqual([
      { name: 'config', mountPath: '/etc/envoy' },
      { name: 'keyturn-socket', mountPath: '/var/run/secrets/workload-spiffe-uds', readOnly: true },
    ]);
  });

  test.each<object>([{ emptyDir: {} }, { emptyDir: null }, {}])(
    'that has a volume %j for the socket, as the proxy of Istio has, keeps it',
    (kind) => {
      const pod = changed(WITH_ENVOY, ({ spec }) => {
        spec.volumes.push({ name: 'workload-socket', ...kind });
        spec.containers[1].volumeMounts.push({
          name: 'workload-socket',
          mountPath: '/run/secrets/workload-spiffe-uds/',
        });
      });
      const { spec } = patched(pod, JOIN);
      expect(spec.initContainers[0].volumeMounts[0]).toEqual({
        name: 'workload-socket',
        mountPath: '/var/run/secrets/workload-spiffe-uds',
      });
      expect(spec.containers).toEqual((pod as typeof WITH_ENVOY).spec.containers);
      expect(spec.volumes.map((each: { name: string }) => each.name)).not.toContain(
        'keyturn-socket',
      );
    },
  );

  test('whose user is not known may be joined where the socket is open to all who mount its volume', () => {
    const pod = changed(WITH_ENVOY, ({ spec }) => {
      delete spec.containers[1].securityContext;
    });
    const { spec } = patched(pod, {
      ...JOIN,
      settings: { ca: 'istiod', 'sds-socket-mode': '0666' },
    });
    expect(spec.initContainers[0].securityContext.runAsUser).toBe(1337);
  });
});

describe('a pod is refused', () => {
  type Row = readonly [
    field: string,
    rule: string,
    // biome-ignore lint/suspicious/noExplicitAny: a deep change of a test's pod
    change: (pod: any) => void,
    options?: Partial<InjectOptions>,
  ];
  const envoyLast =
    (change: (envoy: Record<string, unknown>) => void) =>
    (pod: { spec: { containers: Record<string, unknown>[] } }) => {
      pod.spec.containers.push({ name: 'envoy', image: 'x', securityContext: { runAsUser: 101 } });
      change(pod.spec.containers[1]!);
    };
  const rows: readonly Row[] = [
    [
      'spec.hostNetwork',
      'must not be true',
      ({ spec }) => Object.assign(spec, { hostNetwork: true }),
    ],
    ['spec', 'is for Windows', ({ spec }) => Object.assign(spec, { os: { name: 'windows' } })],
    [
      'spec',
      'is for Windows',
      ({ spec }) => Object.assign(spec, { nodeSelector: { 'kubernetes.io/os': 'windows' } }),
    ],
    [
      'spec.restartPolicy',
      'is Never: a plain',
      ({ spec }) => Object.assign(spec, { restartPolicy: 'Never' }),
      { sidecar: 'plain' },
    ],
    [
      'spec.containers[1].name',
      'is keyturn',
      ({ spec }) => spec.containers.push({ name: 'keyturn' }),
    ],
    [
      'spec.initContainers[0].name',
      'is keyturn-envoy',
      ({ spec }) => Object.assign(spec, { initContainers: [{ name: 'keyturn-envoy' }] }),
    ],
    [
      'spec.volumes[0].name',
      'is keyturn-socket',
      ({ spec }) => Object.assign(spec, { volumes: [{ name: 'keyturn-socket', emptyDir: {} }] }),
    ],
    [
      'spec.containers[0].volumeMounts[0].mountPath',
      'mounts keyturn-socket, the socket of the key',
      ({ spec }) =>
        Object.assign(spec.containers[0], {
          volumeMounts: [{ name: 'keyturn-socket', mountPath: '/s' }],
        }),
    ],
    [
      'spec.containers[0].ports[0].containerPort',
      'is 8080, which is for health',
      () => undefined,
      { adminPort: 8080 },
    ],
    [
      'spec.containers[0].ports[0].containerPort',
      "is 8443, which is for Envoy's mutual TLS",
      ({ spec }) => Object.assign(spec.containers[0].ports[0], { containerPort: 8443 }),
      { envoy: ENVOY_BESIDE },
    ],
    [
      'spec.containers[1]',
      "has Istio's agent",
      ({ spec }) => spec.containers.push({ name: 'istio-proxy' }),
    ],
    ['spec.containers', 'has no container named "envoy"', () => undefined, JOIN],
    ...['../socket', '..', '$(POD_NAME)', 7].map(
      (value): Row => [
        'spec.containers[1].env[0].value',
        'of WORKLOAD_IDENTITY_SOCKET_FILE must be the plain name of a file',
        envoyLast((envoy) =>
          Object.assign(envoy, { env: [{ name: 'WORKLOAD_IDENTITY_SOCKET_FILE', value }] }),
        ),
        JOIN,
      ],
    ),
    [
      'spec.containers[1].env[0].valueFrom',
      'of WORKLOAD_IDENTITY_SOCKET_FILE must be the plain name of a file',
      envoyLast((envoy) =>
        Object.assign(envoy, {
          env: [{ name: 'WORKLOAD_IDENTITY_SOCKET_FILE', valueFrom: { fieldRef: {} } }],
        }),
      ),
      JOIN,
    ],
    [
      'spec.containers[1].securityContext.runAsUser',
      'is missing',
      envoyLast((envoy) => Object.assign(envoy, { securityContext: undefined })),
      JOIN,
    ],
    [
      'spec.containers[1].securityContext.runAsUser',
      'is 0',
      envoyLast((envoy) => Object.assign(envoy, { securityContext: { runAsUser: 0 } })),
      JOIN,
    ],
    [
      'spec.containers[1].volumeMounts[0].mountPath',
      'is where the socket belongs',
      envoyLast((envoy) =>
        Object.assign(envoy, {
          volumeMounts: [{ name: 'csi', mountPath: '/var/run/secrets/workload-spiffe-uds' }],
        }),
      ),
      JOIN,
    ],
    [
      'metadata.labels["keyturn.dev/inject"]',
      'must be "true" or "false"',
      ({ metadata }) => Object.assign(metadata.labels, { 'keyturn.dev/inject': 'no' }),
    ],
  ];
  test.each(rows.map((row) => [row[0], row[1], row] as const))(
    'by %s, which %s',
    (field, rule, [, , change, options = {}]) => {
      expect(problems(changed(POD, change), options)).toEqual([
        expect.stringContaining(`${field}: ${rule}`),
      ]);
    },
  );

  test('for everything at once', () => {
    const pod = changed(POD, ({ spec }) => {
      Object.assign(spec, { hostNetwork: true, volumes: [{ name: 'keyturn-run' }] });
    });
    expect(problems(pod)).toHaveLength(2);
  });

  test.each([
    [undefined, 'spec: is missing: there is no pod to inject into'],
    ['text', ': must be a mapping'],
    [{ spec: {} }, 'spec.containers: must have one'],
    [{ spec: { containers: [] } }, 'spec.containers: must have one'],
    [{ spec: { containers: {} } }, 'spec.containers: must be a list of at most 1000'],
    [{ spec: { containers: [null] } }, 'spec.containers[0]: is missing'],
    [{ spec: { containers: [{}] } }, 'spec.containers[0].name: is missing'],
  ])('where it is none: %j', (pod, problem) => {
    expect(problems(pod)).toEqual([problem]);
  });

  const full = {
    metadata: { labels: { a: 'x' }, annotations: { a: 'x' } },
    spec: {
      restartPolicy: 'Always',
      os: { name: 'linux' },
      nodeSelector: { 'kubernetes.io/os': 'linux' },
      hostNetwork: false,
      hostPID: false,
      shareProcessNamespace: false,
      securityContext: { runAsUser: 1 },
      containers: [
        {
          name: 'a',
          securityContext: { runAsUser: 1 },
          ports: [{ containerPort: 1, protocol: 'TCP' }],
          volumeMounts: [{ name: 'v', mountPath: '/v' }],
        },
      ],
      initContainers: [{ name: 'b' }],
      volumes: [{ name: 'v' }],
    },
  };
  /** Every place in it. */
  const places = (value: unknown, path: (string | number)[] = []): (string | number)[][] => [
    ...(path.length > 0 ? [path] : []),
    ...(typeof value === 'object' && value !== null
      ? Object.entries(value).flatMap(([key, each]) =>
          places(each, [...path, Array.isArray(value) ? Number(key) : key]),
        )
      : []),
  ];
  // biome-ignore lint/suspicious/noExplicitAny: any place of any pod
  const valueAt = (root: any, path: (string | number)[]) =>
    path.reduce((at, part) => at[part], root);
  test.each(places(full).map((path) => [fieldName(path), path] as const))(
    'by %s, where that has a wrong type',
    (field, path) => {
      for (const wrong of [1.5, '1', [[]], true, { '': 0 }]) {
        const injection = injectPod(
          changed(full, (pod) => {
            valueAt(pod, path.slice(0, -1))[path.at(-1)!] = wrong;
          }),
          injectOptions(),
        );
        // Text in place of text may be right, and so on; all else is named.
        if (injection.kind === 'injected') expect(typeof wrong).toBe(typeof valueAt(full, path));
        const named =
          injection.kind === 'refused'
            ? injection.problems.map((each) => fieldName(each.path))
            : [];
        expect(named.filter((each) => !each.startsWith(field))).toEqual([]);
      }
    },
  );
});

describe('from a pod', () => {
  const without = (pod: unknown) => removeFromPod(pod);
  test('everything of ours goes, whatever options put it there, and nothing else', () => {
    const pod = { ...POD, spec: WITH_ENVOY.spec };
    for (const options of [{}, JOIN, { envoy: ENVOY_BESIDE }, { sidecar: 'plain' } as const]) {
      const injection = without(patched(pod, options));
      expect(injection.kind === 'injected' && injection.after).toEqual(pod);
    }
  });

  test("without the annotation nothing goes, for the names are somebody else's", () => {
    const pod = { spec: { containers: [{ name: 'a' }, { name: 'keyturn' }] } };
    expect(without(pod)).toEqual({ kind: 'injected', after: pod, changes: [], notes: [] });
  });

  test.each([
    [
      'spec.containers',
      'has only the injected container',
      (pod: { spec: { containers: unknown[] } }) => pod.spec.containers.splice(0, 1),
    ],
    [
      'spec.containers[0].volumeMounts[0].mountPath',
      'mounts keyturn-run, which is to go',
      (pod: { spec: { containers: object[] } }) =>
        Object.assign(pod.spec.containers[0]!, {
          volumeMounts: [{ name: 'keyturn-run', mountPath: '/x' }],
        }),
    ],
    [
      'spec.containers[0].name',
      'must be text',
      (pod: { spec: { containers: object[] } }) =>
        Object.assign(pod.spec.containers[0]!, { name: 1 }),
    ],
  ])('nothing goes where %s %s', (field, rule, change) => {
    const injection = without(changed(patched(POD, { sidecar: 'plain' }), change));
    const problems =
      injection.kind === 'refused'
        ? injection.problems.map((each) => `${fieldName(each.path)} ${each.rule}`)
        : [];
    expect(problems).toEqual([`${field} ${rule}`]);
  });
});
