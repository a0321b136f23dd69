import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../agent/base/errors';
import { loadConfig } from '../../../agent/config/load';
import { parseWorkloadFile, parseWorkloadList } from '../../../agent/config/workload-list';
import { mutated, RUNS } from '../../support/mutations';

const judge = async (text: string, flags: Readonly<Record<string, string>> = {}) => {
  const { judgeWorkload } = await loadConfig({
    flags: { ca: 'builtin', workloads: 'list', ...flags },
    env: {},
    cwd: '/nonexistent',
  });
  const entry = await parseWorkloadFile(Buffer.from(text), 'cart.yaml', 'cart');
  if ('error' in entry) throw entry.error;
  const judged = judgeWorkload(entry);
  if (judged instanceof AgentError) throw judged;
  return judged;
};

const SHOP = 'namespace: shop\nservice-account: cart\n';

test.each([
  ['an empty entry', '', /cart\.yaml: must name the identity of the workload/],
  ['an entry of settings alone', 'ttl: 1h\n', /must name the identity of the workload/],
  ['half an identity', 'namespace: shop\n', /must name service-account beside namespace/],
  ['the other half', 'service-account: cart\n', /must name namespace beside service-account/],
  ['a trust domain alone', 'trust-domain: td\n', /must name the identity of the workload/],
])('%s is refused, whatever the process says of itself', async (_, text, message) => {
  for (const flags of [
    {},
    { namespace: 'shop', 'service-account': 'all' },
    { 'spiffe-id': 'spiffe://td/all' },
    { ca: 'file' },
  ]) {
    await expect(judge(text, flags)).rejects.toThrow(message);
  }
});

test('mounted files of its own say who a workload is', async () => {
  expect(await judge('credentials-dir: /mounted/cart\n', { ca: 'file' })).toMatchObject({
    id: undefined,
    credentialsDir: '/mounted/cart',
  });
  expect(
    await judge('credential-bundle: /cart.pem\ntrust-bundle: /roots.pem\n', { ca: 'file' }),
  ).toMatchObject({ id: undefined });
});

test('a workload says what differs from the settings of the process', async () => {
  const config = await judge(
    'namespace: shop\nservice-account: cart\nttl: 1h\nsds-socket-mode: 0660\n',
    {
      namespace: 'all',
      ttl: '2h',
      token: '/t',
    },
  );
  expect(config).toMatchObject({
    id: { path: '/ns/shop/sa/cart' },
    ttlMs: 3_600_000,
    sdsSocketMode: 0o660,
    token: '/t',
    ca: ['builtin'],
  });
});

test('what no two can share lies below what the process was given, under the name, unless the workload says where', async () => {
  const flags = {
    'sds-socket': '/run/sds/socket',
    'state-dir': '/var/state',
    'output-certs': '/certs',
  };
  const below = {
    sdsSocket: '/run/sds/cart/socket',
    stateDir: '/var/state/cart',
    outputCerts: '/certs/cart',
  };
  expect(await judge(SHOP, flags)).toMatchObject(below);
  const own = `${SHOP}sds-socket: /s\nstate-dir: /d\noutput-certs: /o\n`;
  expect(await judge(own, flags)).toMatchObject({
    sdsSocket: '/s',
    stateDir: '/d',
    outputCerts: '/o',
  });
  expect(await judge(`name: basket\n${SHOP}`, flags)).toMatchObject({
    sdsSocket: '/run/sds/basket/socket',
  });
});

test('the identity that a workload gives itself wins over any that the process was given, whole or in parts', async () => {
  expect(
    await judge('namespace: shop\nservice-account: till\n', { 'spiffe-id': 'spiffe://td/all' }),
  ).toMatchObject({
    id: { path: '/ns/shop/sa/till' },
  });
  expect(await judge('spiffe-id: spiffe://td/till\n', { 'service-account': 'all' })).toMatchObject({
    id: { trustDomain: 'td', path: '/till' },
  });
  await expect(judge('spiffe-id: spiffe://td/till\nnamespace: shop\n')).rejects.toThrow(
    /cannot be given together with/,
  );
});

test('rules between settings hold for each workload by itself', async () => {
  await expect(judge(`${SHOP}ca: kubernetes-csr\n`)).rejects.toThrow(
    'workload cart: flag --signer-name: is required for kubernetes-csr',
  );
  await expect(judge(`${SHOP}renew-ratio: 0.2\nrenew-jitter: 0.3\n`)).rejects.toThrow(
    /cart\.yaml: renew-jitter: "0\.3" must be less than renew-ratio/,
  );
  const { config } = await loadConfig({
    flags: { workloads: 'list' },
    env: {},
    cwd: '/nonexistent',
  });
  expect(config).toMatchObject({ ca: [], id: undefined });
});

test('a mutated list is entries and refusals, or refused by ERR_CONFIG as a whole, and never anything else', async () => {
  const texts = [
    '- name: cart\n  namespace: shop\n  ttl: 1h\n- {name: till, sds-socket: /a}\n',
    '- name: "a"\n  sds-file-dir: [/a, /b]\n- plain\n- [list]\n- name: &x b\n  ttl: *x\n',
    '[]\n',
    '- {name: a}\n- {name: a}\n- {nam: b}\n- {name: .b}\n',
  ].map((text) => Buffer.from(text));
  const { judgeWorkload } = await loadConfig({
    flags: { ca: 'builtin', workloads: 'list' },
    env: {},
    cwd: '/nonexistent',
  });
  await fc.assert(
    fc.asyncProperty(mutated(texts), async (text) => {
      try {
        const entries = await parseWorkloadList(text, 'list');
        return entries.every((entry) => {
          if ('error' in entry)
            return entry.error.code === 'ERR_CONFIG' && entry.error.field !== undefined;
          const judged = judgeWorkload(entry);
          return judged instanceof AgentError
            ? judged.message.startsWith(`workload ${entry.name}: `)
            : /^[a-z0-9._-]{1,63}$/.test(entry.name) &&
                (judged.id !== undefined || judged.ca.includes('file'));
        });
      } catch (error) {
        return (
          error instanceof AgentError &&
          error.code === 'ERR_CONFIG' &&
          (error.field ?? '').startsWith('file list')
        );
      }
    }),
    { numRuns: RUNS },
  );
});
