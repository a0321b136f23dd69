import { describe, expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import { injectManifest } from '../../../agent/inject/inject-manifest';
import type { InjectOptions } from '../../../agent/inject/options';
import { injectOptions } from '../../support/inject';

/** What of a refusal a person reads. */
async function refusals(
  text: string | Uint8Array,
  changed: Partial<InjectOptions> = {},
): Promise<string[]> {
  try {
    await injectManifest(Buffer.from(text), 'app.yaml', injectOptions(changed));
  } catch (caught) {
    if (!(caught instanceof AgentError) || caught.code !== 'ERR_MANIFEST') throw caught;
    const all =
      caught.cause instanceof AggregateError ? (caught.cause.errors as AgentError[]) : [caught];
    return all.map((each) => each.message);
  }
  return [];
}

async function injected(text: string, changed: Partial<InjectOptions> = {}): Promise<string> {
  return (await injectManifest(Buffer.from(text), 'app.yaml', injectOptions(changed))).text;
}

/** Lines of the second that are not of the first, in order; fails unless the first's lines are all there, in theirs. */
function added(before: string, after: string): string[] {
  const missing = before.split('\n');
  const more = after
    .split('\n')
    .filter((line) => line !== missing[0] || missing.shift() === undefined);
  expect(missing).toEqual([]);
  return more;
}

const DEPLOYMENT = `# The shop.
apiVersion: apps/v1
kind: Deployment # of the cart
metadata: {name: cart, namespace: shop}
spec:
    selector: {matchLabels: {app: cart}}
    template:
        metadata:
            labels: { "app": 'cart' }   # quoted both ways
        spec:

            # before the containers
            containers:
            # of the cart
            - name: cart
              image: "cart:1"   # the image
              command: ["sh", -c]
              args:
              - |-
                 exec cart

                 # no comment
            # after the containers
            terminationGracePeriodSeconds: 0x10
# The end.
`;

describe('a manifest', () => {
  test('keeps each of its lines, and gets ours in the style around them', async () => {
    const more = added(DEPLOYMENT, await injected(DEPLOYMENT));
    expect(more.slice(0, 4)).toEqual([
      '            annotations:',
      '              keyturn.dev/injected: "true"',
      '            initContainers:',
      '            - name: keyturn',
    ]);
    expect(more.find((line) => line.includes('restartPolicy'))).toBe(
      '              restartPolicy: Always',
    );
    expect(more).toContain('            volumes:');
  });

  test('that was injected before does not change by an octet', async () => {
    const once = await injected(DEPLOYMENT);
    const { text, reports } = await injectManifest(Buffer.from(once), 'app.yaml', injectOptions());
    expect(text).toBe(once);
    expect(reports).toEqual([
      { object: 'document 1, Deployment shop/cart', outcome: 'unchanged', notes: [] },
    ]);
  });

  test('changes in the places that other options are about, and nowhere else', async () => {
    const once = await injected(DEPLOYMENT);
    const other = await injected(once, { image: 'keyturn:2', audience: 'other' });
    const [before, after] = [once.split('\n'), other.split('\n')];
    expect(after.filter((line, index) => line !== before[index])).toEqual([
      '              image: keyturn:2',
      '                    audience: other',
    ]);
  });

  test.each([
    ['CR LF', DEPLOYMENT.replaceAll('\n', '\r\n')],
    ['a byte order mark', `\uFEFF${DEPLOYMENT}`],
    ['no last end of line', DEPLOYMENT.replace('# The end.\n', '').trimEnd()],
    ['a start and an end of the document', `---\n${DEPLOYMENT}...\n`],
    [
      'nothing but JSON',
      JSON.stringify(
        {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: {},
          spec: { containers: [{ name: 'a', image: 'b' }] },
        },
        null,
        2,
      ),
    ],
    [
      'a list that is not indented',
      'apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - {name: a, image: b}\n  volumes: ~ # none\n',
    ],
    [
      'keys in another order',
      'spec: {volumes: [], containers: [{image: b, name: a,},],}\nkind: Pod\napiVersion: v1\nmetadata:',
    ],
    [
      'brackets that close where their key stands',
      'apiVersion: v1\nkind: Pod\nspec:\n  containers: [\n    {name: a}\n  ]\n',
    ],
    [
      'a block scalar at its end',
      'apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    image: |+\n      b\n\n\n',
    ],
  ])('with %s keeps it', async (_, text) => {
    const once = await injected(text);
    expect(once.startsWith('\uFEFF')).toBe(text.startsWith('\uFEFF'));
    expect(once.endsWith('\n')).toBe(text.endsWith('\n'));
    if (text.includes('\r\n')) expect(once.replaceAll('\r\n', '').includes('\n')).toBe(false);
    if (text.startsWith('{')) JSON.parse(once);
    expect(await injected(once)).toBe(once);
  });

  test('has the agent in each pod of its documents and lists, and nothing else changed', async () => {
    const other = 'apiVersion: v1\nkind: ConfigMap\nmetadata:  {name:   odd}\ndata: {kind: Pod}\n';
    const pod = (name: string, indent: string) =>
      [
        `apiVersion: v1`,
        'kind: Pod',
        'metadata:',
        `  name: ${name}`,
        'spec:',
        '  containers: # its',
        '  - name: "a" # one',
      ].join(`\n${indent}`);
    const list = `apiVersion: v1\nkind: List\nitems:\n- ${pod('one', '  ')}\n- ${other.trimEnd().replaceAll('\n', '\n  ')}\n- ${pod('two', '  ')}\n`;
    const text = `${other}---\n# nothing\n---\n${list}---\napiVersion: example.org/v1\nkind: Pod\n`;
    const { text: after, reports } = await injectManifest(
      Buffer.from(text),
      'app.yaml',
      injectOptions(),
    );
    added(text, after);
    expect(reports.map(({ object, outcome }) => `${object}: ${outcome}`)).toEqual([
      'document 1, ConfigMap odd: no-pod',
      'document 3, Pod one: injected',
      'document 3, ConfigMap odd: no-pod',
      'document 3, Pod two: injected',
      'document 4, Pod: no-pod',
    ]);
    expect(after.split('- name: keyturn\n')).toHaveLength(3);
  });

  test('that lists one kind, as the API server answers, has items that need not say what they are', async () => {
    const text = `apiVersion: apps/v1
kind: DeploymentList
metadata: {resourceVersion: "1"}
items:
- metadata: {name: one}
  spec: {template: {spec: {containers: [{name: a}]}}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: two}
  spec:
    template:
      spec:
        containers:
        - name: a
`;
    const { text: after, reports } = await injectManifest(
      Buffer.from(text),
      'app.yaml',
      injectOptions(),
    );
    expect(reports.map(({ object, outcome }) => `${object}: ${outcome}`)).toEqual([
      'document 1, Deployment one: injected',
      'document 1, Deployment two: injected',
    ]);
    expect(after).not.toContain('kind: Deployment\n- ');
    expect(await injected(after)).toBe(after);
  });

  test('of a kind that nobody knows is left as it is, with a note where it looks as if it made pods', async () => {
    const rollout =
      'apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec: {template: {spec: {containers: [{name: a}]}}}\n';
    const text = `${rollout}---\napiVersion: example.org/v1\nkind: OddList\nitems: 7\n`;
    const { text: after, reports } = await injectManifest(
      Buffer.from(text),
      'app.yaml',
      injectOptions(),
    );
    expect(after).toBe(text);
    expect(reports).toEqual([
      {
        object: 'document 1, Rollout',
        outcome: 'no-pod',
        notes: [expect.stringMatching(/^spec\.template: looks like that of pods; keyturn webhook/)],
      },
      { object: 'document 2, OddList', outcome: 'no-pod', notes: [] },
    ]);
  });

  test('whose containers come by an anchor keeps it', async () => {
    const text = `apiVersion: v1
kind: Pod
spec:
  containers:
  - &main
    name: a
    image: b
    env: &env [{name: X, value: "1"}]
  - { <<: *main, name: c, env: *env }
`;
    const after = await injected(text);
    added(text, after);
    expect(after).toContain('- { <<: *main, name: c, env: *env }');
  });

  test.each([
    [
      'an alias',
      'x: &pod\n  containers:\n  - name: a\napiVersion: v1\nkind: Pod\nspec: *pod\n',
      'spec.initContainers: comes by an alias',
    ],
    [
      'a merge',
      'x: &x {containers: [{name: a}], volumes: [{name: v}]}\napiVersion: v1\nkind: Pod\nspec:\n  <<: *x\n',
      'comes by an alias or a merge',
    ],
    [
      'an anchor that others use',
      'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: &spec\n  containers:\n  - name: a\nother: *spec\n',
      'without changing more than the pods',
    ],
  ])('whose pod comes by %s is refused rather than changed elsewhere', async (_, text, rule) => {
    expect(await refusals(text)).toEqual([expect.stringContaining(rule)]);
  });
});

describe('a manifest is refused', () => {
  const nested = (open: string, count: number) => open.repeat(count);
  const bomb = `a: &a [x, x, x, x, x, x, x, x, x, x]\n${Array.from('bcdefghi')
    .map(
      (name, index) => `${name}: &${name} [${Array(10).fill(`*${'abcdefgh'[index]}`).join(', ')}]`,
    )
    .join('\n')}\nkind: Pod\napiVersion: v1\n`;
  test.each([
    ['that is no YAML', 'a: [', 'app.yaml:2: is not YAML'],
    ['that is no UTF-8', Buffer.from([0x61, 0xff]), 'app.yaml: must be UTF-8'],
    [
      'that is too large',
      Buffer.alloc(20 << 20, 'x'),
      'app.yaml: must not be larger than 16384 KiB',
    ],
    [
      'of too many words',
      '- 1\n'.repeat(1_100_000),
      'app.yaml: must not have more than 4000000 words and signs',
    ],
    ['nested too deeply in brackets', nested('[', 100_000), 'is nested too deeply'],
    ['nested too deeply in lists', nested('- ', 100_000), 'is nested too deeply'],
    ['nested too deeply in keys', nested('? ', 100_000), 'is nested too deeply'],
    [
      'whose aliases grow',
      bomb,
      'must not say more than 2000000 values, with its aliases followed',
    ],
    [
      'whose alias is unknown',
      'kind: *nobody\n',
      'app.yaml:1: has an alias whose anchor is not complete before it',
    ],
    [
      'whose alias is of itself',
      'kind: &a [*a]\n',
      'has an alias whose anchor is not complete before it',
    ],
    [
      'with a key twice',
      'kind: ConfigMap\napiVersion: v1\nkind: Pod\n',
      'app.yaml:3: "kind" is given twice',
    ],
    ['with a key that is no text', '{[a]: b}\n', 'has a key that is no plain value'],
    ['with a merge of text', 'a: &a text\n<<: *a\n', 'merges what is no mapping'],
    ['that is text', 'just text\n', 'app.yaml:1 document 1: must be a mapping'],
    ['without a kind', 'a: b\n', 'app.yaml:1 document 1, kind: must say what it is'],
    ['without an API version', 'kind: Pod\n', 'app.yaml:1 document 1, apiVersion: must be text'],
    [
      'with a list of no items',
      'apiVersion: v1\nkind: List\nitems: {}\n',
      'app.yaml:3 document 1, items: must be a list',
    ],
    [
      'with an empty item',
      'apiVersion: v1\nkind: List\nitems: [null]\n',
      'app.yaml:3 document 1, items[0]: is empty',
    ],
    [
      'without a pod',
      'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n',
      'app.yaml:1 document 1, Deployment x, spec.template.spec: is missing',
    ],
    [
      'with YAML 1.1 truth, which the API server would take for true',
      'apiVersion: v1\nkind: Pod\nspec: {hostNetwork: yes, containers: [{name: a}]}\n',
      'app.yaml:3 document 1, Pod, spec.hostNetwork: must be true or false',
    ],
  ])('%s', async (_, text, message) => {
    expect(await refusals(text)).toEqual([expect.stringContaining(message)]);
  });

  test('that is a template, with what to do about it', async () => {
    const hints = async (text: string) => {
      const caught = await injectManifest(Buffer.from(text), 'app.yaml', injectOptions()).catch(
        (error: unknown) => error,
      );
      return caught instanceof AgentError ? caught.hint : undefined;
    };
    const hint = 'a template ({{ }}) is rendered first, e.g. by helm template';
    expect(await hints('kind: Pod\nmetadata:\n  name: {{ .Values.name }}\n')).toBe(hint);
    expect(await hints('kind: Pod\n{{- if .Values.on }}\na: b\n{{- end }}\n')).toBe(hint);
    expect(await hints('kind: [\n')).toBeUndefined();
  });

  test('for all of its documents at once', async () => {
    const bad =
      'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {hostNetwork: true, containers: [{name: keyturn}]}\n';
    expect(await refusals(`${bad}---\n${bad}`)).toEqual([
      expect.stringMatching(/^app.yaml:4 document 1, Pod x, spec.hostNetwork: must not be true/),
      expect.stringMatching(
        /^app.yaml:4 document 1, Pod x, spec.containers\[0\].name: is keyturn, which is reserved for keyturn/,
      ),
      expect.stringMatching(/^app.yaml:9 document 2, Pod x, spec.hostNetwork/),
      expect.stringMatching(/^app.yaml:9 document 2, Pod x, spec.containers\[0\].name/),
    ]);
  });

  test('where it could not be read again with the agent in it', async () => {
    const pod = 'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a}]}\n';
    const long = `${pod}# ${'x'.repeat((16 << 20) - pod.length - 3)}\n`;
    expect(long).toHaveLength(16 << 20);
    expect(await refusals(long)).toEqual([
      'app.yaml, with the agent in it: must not be larger than 16384 KiB',
    ]);
    expect(await refusals(long.replace('kind: Pod', 'kind: Odd'))).toEqual([]);
  });

  test('on the line of the field; of what should have it, where it is missing; or of the alias that it comes by', async () => {
    const text = `# two of them
x: &rule
  securityContext: {runAsUser: text}
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels:
    # to the left of its value
    "keyturn.dev/inject":
      "no"
spec:
  nodeSelector: { kubernetes.io/os: linux,
    a: 1 }
  containers:
    # comment
    -
      image: b
    - <<: *rule
      name: c
`;
    expect(await refusals(text)).toEqual([
      'app.yaml:14 document 1, Pod a, spec.nodeSelector.a: must be text',
      'app.yaml:18 document 1, Pod a, spec.containers[0].name: is missing',
      'app.yaml:19 document 1, Pod a, spec.containers[1].securityContext.runAsUser: must be a whole number',
    ]);
    const marked = text
      .replace('a: 1 }', '}')
      .replace('runAsUser: text', '')
      .replace('image: b', 'name: b');
    expect(await refusals(marked)).toEqual([
      'app.yaml:10 document 1, Pod a, metadata.labels["keyturn.dev/inject"]: must be "true" or "false"',
    ]);
  });
});

test('how far a long manifest is comes in growing shares', async () => {
  const text = `apiVersion: v1\nkind: List\nitems:\n${'- {apiVersion: v1, kind: ConfigMap}\n'.repeat(6_000)}---\n${DEPLOYMENT}`;
  const shares: number[] = [];
  await injectManifest(Buffer.from(text), 'app.yaml', injectOptions(), (share) =>
    shares.push(share),
  );
  expect(shares.length).toBeGreaterThan(2);
  expect(shares).toEqual(shares.toSorted((one, other) => one - other));
  expect(shares[0]).toBeGreaterThan(0);
  expect(shares.at(-1)).toBeLessThanOrEqual(1);
});

test('a comment that stood deep behind what goes again becomes no part of the text before it', async () => {
  const kept = `apiVersion: v1
kind: Pod
spec:
  containers:
    - name: web
      image: |
        web:1
`;
  const pod = `${kept}      volumeMounts:
        []
            # none yet
            # of its own
`;
  const join = {
    envoy: { kind: 'join', container: 'web' },
    settings: { ca: 'istiod', 'sds-socket-mode': '0666' },
  } as const;
  const { text } = await injectManifest(
    Buffer.from(await injected(pod, join)),
    'app.yaml',
    'remove',
  );
  expect(text).toBe(`${kept}      # none yet
      # of its own
`);
});
