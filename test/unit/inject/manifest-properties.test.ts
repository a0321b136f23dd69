import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import * as yaml from 'yaml';
import { AgentError } from '../../../agent/base/errors';
import { changesBetween, jsonPatch } from '../../../agent/inject/changes';
import { injectManifest } from '../../../agent/inject/inject-manifest';
import { injectPod } from '../../../agent/inject/inject-pod';
import type { InjectOptions } from '../../../agent/inject/options';
import { ENVOY_BESIDE, injectOptions } from '../../support/inject';
import { applyPatch } from '../../support/json-patch';
import { mutated, RUNS } from '../../support/mutations';

const word = fc.constantFrom(
  'a',
  'main',
  'x-1',
  'yes',
  '0x10',
  '1e3',
  '# no',
  'a: b',
  '',
  "it's",
  'two\nlines\n',
  'ünï',
  '{',
  '- x',
  '$(X)',
  '~',
);
const scalar = fc.oneof(word, fc.integer(), fc.boolean(), fc.constant(null));
const anything = fc.oneof(
  scalar,
  fc.array(scalar, { maxLength: 3 }),
  fc.dictionary(
    word.filter((each) => each !== ''),
    fc.oneof(scalar, fc.array(scalar, { maxLength: 2 }), fc.constant({})),
    { maxKeys: 3 },
  ),
);
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'web', 'envoy-x'), {
  minLength: 1,
  maxLength: 3,
});
const named = (extra: fc.Arbitrary<unknown>) =>
  fc
    .tuple(names, fc.array(extra, { minLength: 3, maxLength: 3 }))
    .map(([all, extras]) => all.map((name, index) => ({ name, extra: extras[index] })));
const mounts = optional(
  fc.oneof(fc.constant(null), fc.constant([]), fc.constant([{ name: 'data', mountPath: '/data' }])),
);
const containers = fc
  .tuple(named(anything), mounts)
  .map(([all, volumeMounts]) =>
    all.map((each, index) =>
      index === 0 && volumeMounts !== undefined ? { ...each, volumeMounts } : each,
    ),
  );
const volumes = optional(fc.oneof(fc.constant(null), fc.constant([]), named(anything)));
const texts = optional(
  fc.oneof(
    fc.constant(null),
    fc.constant({}),
    fc.dictionary(fc.constantFrom('k', 'a/b', 'x.y'), word, { maxKeys: 2 }),
  ),
);

/** A pod with something of everything, in any order. */
const podOf = fc
  .tuple(
    fc.record({
      metadata: fc.oneof(
        fc.constant(null),
        fc.record({ labels: texts, annotations: texts, extra: optional(anything) }),
      ),
    }),
    fc.record({
      containers,
      initContainers: volumes,
      volumes,
      extra: optional(anything),
      restartPolicy: optional(fc.constant('Always')),
    }),
    fc.boolean(),
    fc.shuffledSubarray(
      ['containers', 'initContainers', 'volumes', 'extra', 'restartPolicy'] as const,
      { minLength: 5 },
    ),
  )
  .map(([{ metadata }, spec, specFirst, order]) => {
    const ordered = Object.fromEntries(
      order.filter((key) => spec[key] !== undefined).map((key) => [key, spec[key]]),
    );
    return clean(specFirst ? { spec: ordered, metadata } : { metadata, spec: ordered });
  });

function clean(value: unknown): Record<string, unknown> {
  return JSON.parse(JSON.stringify(value));
}

const choice: fc.Arbitrary<Partial<InjectOptions>> = fc.record(
  {
    image: fc.constantFrom('keyturn:1', 'keyturn:2'),
    sidecar: fc.constantFrom('native', 'plain'),
    envoy: fc.constantFrom(undefined, ENVOY_BESIDE, { kind: 'join', container: 'a' } as const),
    cas: fc.constantFrom(
      ['istiod'] as const,
      ['kubernetes-csr'] as const,
      ['istio-csr', 'kubernetes-csr'] as const,
    ),
    settings: fc.constantFrom(
      { ca: 'istiod', 'sds-socket-mode': '0666' },
      { ca: 'istiod', ttl: '1h', 'sds-socket-mode': '0666' },
      { 'sds-socket-mode': '0666' },
    ),
  },
  { requiredKeys: ['settings', 'sidecar'] },
);

test('any pod that is injected is as if by the last options alone, again and again, and its patch leads there', () => {
  fc.assert(
    fc.property(podOf, choice, choice, (pod, first, second) => {
      const once = injectPod(pod, injectOptions(first));
      const direct = injectPod(pod, injectOptions(second));
      // A container `a` to join may not be there.
      if (once.kind !== 'injected' || direct.kind !== 'injected') return;
      expect(applyPatch(pod, jsonPatch(once.changes))).toEqual(once.after);
      expect(injectPod(once.after, injectOptions(first))).toMatchObject({ changes: [] });
      const again = injectPod(once.after, injectOptions(second));
      if (again.kind !== 'injected') throw new Error(again.kind);
      // Where ours are left, ours stay: a pod without any list of its own keeps an empty one at most.
      expect(injectPod(again.after, injectOptions(second))).toMatchObject({ changes: [] });
      expect(changesBetween(normal(again.after), normal(direct.after))).toEqual([]);
    }),
    { numRuns: RUNS / 4 },
  );
});

/** An empty list, none and null are the same to the API server. */
function normal(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_, each) =>
    each === null || (Array.isArray(each) && each.length === 0) ? undefined : each,
  );
}

/** A text takes the time of hundreds of values: 10,000 of them are for the day when time is given. */
const TEXT_RUNS = process.env.KEYTURN_TEST === 'full' ? 10_000 : RUNS / 50;

/** How a text may look: one seed decides about every node. */
const style = fc.record({
  seed: fc.nat(),
  indent: fc.constantFrom(2, 3, 4),
  indentSeq: fc.boolean(),
  flow: fc.constantFrom(0, 0.1, 1),
  crlf: fc.boolean(),
});
type Style = typeof style extends fc.Arbitrary<infer T> ? T : never;

function written(value: unknown, { seed, indent, indentSeq, flow, crlf }: Style): string {
  let state = seed || 1;
  const chance = () => {
    state = (Math.imul(state, 48_271) >>> 0) % 2_147_483_647;
    return state / 2_147_483_647;
  };
  const document = new yaml.Document(value);
  yaml.visit(document, {
    Node: (key, node) => {
      if (!yaml.isScalar(node) && !yaml.isCollection(node)) return;
      if (yaml.isCollection(node) && chance() < flow) node.flow = true;
      if (chance() < 0.15 && key !== null) node.comment = ' after';
      if (chance() < 0.15 && key !== null) node.commentBefore = ' before';
      if (chance() < 0.1 && key !== null) node.spaceBefore = true;
      if (yaml.isScalar(node) && typeof node.value === 'string' && chance() < 0.3)
        node.type = chance() < 0.5 ? 'QUOTE_DOUBLE' : 'QUOTE_SINGLE';
    },
  });
  const text = document.toString({ indent, indentSeq, lineWidth: 0 });
  return crlf ? text.replaceAll('\n', '\r\n') : text;
}

const KINDS = [
  ['v1', 'Pod', []],
  ['apps/v1', 'Deployment', ['spec', 'template']],
  ['batch/v1', 'CronJob', ['spec', 'jobTemplate', 'spec', 'template']],
  ['v1', 'List', ['items', 0]],
] as const;

function objectOf([apiVersion, kind, path]: (typeof KINDS)[number], pod: object): object {
  if (kind === 'List')
    return {
      kind,
      items: [
        { ...pod, apiVersion, kind: 'Pod' },
        { apiVersion, kind: 'Secret' },
      ],
      apiVersion,
    };
  return {
    apiVersion,
    kind,
    ...(path as readonly string[]).reduceRight<object>((below, key) => ({ [key]: below }), pod),
  };
}

const other = fc.constantFrom(
  'apiVersion: v1\nkind:   ConfigMap\ndata: {a:   "b"} # odd\n',
  '# only a comment\n',
  '{"apiVersion": "v1", "kind": "Secret"}\n',
);

/** Whether a text is another with something added between its characters. */
function isWithin(part: string, whole: string): boolean {
  let at = 0;
  for (const character of whole) if (at < part.length && character === part[at]) at += 1;
  return at === part.length;
}

test('any text of pods says afterwards what it should, is the same otherwise, and does not change again', async () => {
  const document = fc.tuple(fc.constantFrom(...KINDS), podOf, style);
  await fc.assert(
    fc.asyncProperty(
      document,
      other,
      other,
      choice,
      choice,
      async ([kind, pod, look], head, tail, first, second) => {
        const text = written(objectOf(kind, pod), look);
        // What YAML cannot write down in this way is no test of ours.
        fc.pre(yaml.parseAllDocuments(text).every((each) => each.errors.length === 0));
        const before = yaml.parse(text);
        const read = kind[2].reduce((at, key) => at[key], before);
        const wanted = injectPod(read, injectOptions(first));
        fc.pre(wanted.kind === 'injected');
        const whole = `${head}---\n${text}---\n${tail}`;
        const { text: once } = await injectManifest(Buffer.from(whole), 'x', injectOptions(first));
        expect(once.startsWith(`${head}---\n`)).toBe(true);
        expect(once.endsWith(`---\n${tail}`)).toBe(true);
        const middle = once.slice(head.length + 4, once.length - tail.length - 4);
        expect(isWithin(text.replace(/(?:\[\s*\]|\{\s*\}|null|~)/g, ''), middle)).toBe(true);
        if (wanted.kind === 'injected') {
          const found = kind[2].reduce((at, key) => at[key], yaml.parse(middle));
          expect(changesBetween(clean(found), clean(wanted.after))).toEqual([]);
        }
        expect((await injectManifest(Buffer.from(once), 'x', injectOptions(first))).text).toBe(
          once,
        );
        if (injectPod(read, injectOptions(second)).kind !== 'injected') return;
        const { text: twice } = await injectManifest(Buffer.from(once), 'x', injectOptions(second));
        expect((await injectManifest(Buffer.from(twice), 'x', injectOptions(second))).text).toBe(
          twice,
        );
      },
    ),
    { numRuns: TEXT_RUNS },
  );
}, 1_800_000);

/** Whether something is there that injection fills: where it was empty before, removal leaves nothing instead. */
function hasEmpty(pod: unknown): boolean {
  const { metadata, spec } = pod as {
    metadata?: Record<string, unknown>;
    spec: Record<string, unknown>;
  };
  const isEmpty = (value: unknown) =>
    value === null ||
    (typeof value === 'object' && value !== undefined && Object.keys(value).length === 0);
  const listed = (spec.containers as Record<string, unknown>[]).map(
    ({ volumeMounts }) => volumeMounts,
  );
  return [metadata, metadata?.annotations, spec.initContainers, spec.volumes, ...listed].some(
    (each) => each !== undefined && isEmpty(each),
  );
}

test('what was injected into any text goes again, to the octet but for what was empty', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...KINDS),
      podOf,
      style,
      choice,
      choice,
      async (kind, pod, look, first, second) => {
        const text = written(objectOf(kind, pod), look);
        fc.pre(yaml.parseAllDocuments(text).every((each) => each.errors.length === 0));
        const read = kind[2].reduce((at, key) => at[key], yaml.parse(text));
        fc.pre(
          [first, second].every((each) => injectPod(read, injectOptions(each)).kind === 'injected'),
        );
        const { text: once } = await injectManifest(Buffer.from(text), 'x', injectOptions(first));
        const { text: removed } = await injectManifest(Buffer.from(once), 'x', 'remove');
        expect(changesBetween(bare(yaml.parse(removed)), bare(yaml.parse(text)))).toEqual([]);
        if (!hasEmpty(read)) expect(removed).toBe(text);
        const { text: twice } = await injectManifest(Buffer.from(once), 'x', injectOptions(second));
        const { text: afterBoth } = await injectManifest(Buffer.from(twice), 'x', 'remove');
        expect(changesBetween(bare(yaml.parse(afterBoth)), bare(yaml.parse(text)))).toEqual([]);
        expect((await injectManifest(Buffer.from(afterBoth), 'x', 'remove')).text).toBe(afterBoth);
      },
    ),
    { numRuns: TEXT_RUNS },
  );
}, 1_800_000);

/** Without what is null or empty. */
function bare(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_, each) =>
    each === null || (typeof each === 'object' && Object.keys(each).length === 0)
      ? undefined
      : each,
  );
}

test('a mutated manifest is injected or refused by name and rule, and nothing else', async () => {
  const good = `apiVersion: apps/v1
kind: Deployment
metadata: {name: cart}
spec:
  template:
    metadata:
      labels: &l {app: cart}
    spec:
      containers:
      - name: cart
        image: "x"
        ports: [{containerPort: 80}]
        env: *l
      volumes:
      - name: v
        emptyDir: {}
`;
  const { text } = await injectManifest(Buffer.from(good), 'x', injectOptions());
  await fc.assert(
    fc.asyncProperty(mutated([Buffer.from(good), Buffer.from(text)]), async (bytes) => {
      try {
        const { text: once } = await injectManifest(bytes, 'x', injectOptions());
        expect((await injectManifest(Buffer.from(once), 'x', injectOptions())).text).toBe(once);
      } catch (caught) {
        if (!(caught instanceof AgentError) || caught.code !== 'ERR_MANIFEST') throw caught;
      }
    }),
    { numRuns: 2 * TEXT_RUNS },
  );
}, 1_800_000);
