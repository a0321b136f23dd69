import { describe, expect, test } from '@jest/globals';
import { createTokenReviewAuthenticator } from '../../../../agent/authority/server/token-review';
import { AgentError } from '../../../../agent/base/errors';
import { Secret } from '../../../../agent/base/secret';
import { formatSpiffeId } from '../../../../agent/identity/spiffe-id';
import type { KubeApi, KubeMethod, KubeRequestOptions } from '../../../../agent/kube/kube-api';
import { settle, TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';
import {
  makeTokenIssuer,
  TEST_AUDIENCE,
  TEST_ISSUER,
  type TokenIssuer,
} from '../../../support/tokens';
import { until } from '../../../support/until';

const issuer = makeTokenIssuer();
const CART = {
  username: 'system:serviceaccount:shop:cart',
  uid: 'cart-1',
  groups: groupsOf('shop'),
};
const YES = { authenticated: true, audiences: [TEST_AUDIENCE], user: CART };

function groupsOf(namespace: string): string[] {
  return ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'];
}

/** @param published  What of issuer and keys can be read; default nothing. */
function open(
  status: unknown | (() => Promise<unknown>),
  published?: () => Record<string, unknown>,
) {
  const asked: { method: KubeMethod; path: string; body: unknown }[] = [];
  const api = {
    request: async (method: KubeMethod, path: string, options?: KubeRequestOptions) => {
      if (method === 'GET') {
        const found = published?.()[path];
        if (found === undefined) throw new AgentError('ERR_CA_REJECTED', `GET ${path}: 403`);
        return found;
      }
      asked.push({ method, path, body: options?.body });
      return { status: typeof status === 'function' ? await status() : status };
    },
  } as Pick<KubeApi, 'request'>;
  const clock = new TestClock(Date.now());
  const options = { api, audiences: [TEST_AUDIENCE], trustDomain: 'cluster.local', aliases: [] };
  const authenticator = createTokenReviewAuthenticator(options, testDeps({ clock }));
  const ask = (token: string, address = '127.0.0.1') =>
    authenticator
      .authenticate(
        { bearer: new Secret(token), certificatesDer: [], address, keySha256: '' },
        new AbortController().signal,
      )
      .then(
        (caller) => (caller === undefined ? 'not mine' : formatSpiffeId(caller.id)),
        (error) => error.code,
      );
  return { ask, asked, clock, authenticator };
}

test('a token that the Kubernetes API vouches for names its service account, and its pod', async () => {
  const token = issuer.token();
  const extra = {
    'authentication.kubernetes.io/pod-name': ['cart-7'],
    'authentication.kubernetes.io/pod-uid': ['u-1'],
  };
  const { authenticator, asked } = open({ ...YES, user: { ...CART, extra } });
  const credentials = {
    bearer: new Secret(token),
    certificatesDer: [],
    address: '127.0.0.1',
    keySha256: '',
  };
  const caller = await authenticator.authenticate(credentials, new AbortController().signal);
  expect(caller).toMatchObject({
    method: 'token-review',
    detail: { pod: 'cart-7', podUid: 'u-1' },
  });
  expect(formatSpiffeId(caller!.id)).toBe('spiffe://cluster.local/ns/shop/sa/cart');
  expect(asked).toMatchObject([
    {
      method: 'POST',
      path: '/apis/authentication.k8s.io/v1/tokenreviews',
      body: { kind: 'TokenReview', spec: { token, audiences: [TEST_AUDIENCE] } },
    },
  ]);
});

test.each([
  ['not authenticated', { authenticated: false, error: 'token has expired' }],
  ['for another audience', { ...YES, audiences: ['other'] }],
  ['judged by a server that knows no audiences', { ...YES, audiences: undefined }],
  ['of a user', { ...YES, user: { ...CART, username: 'alice' } }],
  ['of a node', { ...YES, user: { ...CART, username: 'system:node:n1' } }],
  [
    'of a name with five parts',
    { ...YES, user: { ...CART, username: 'system:serviceaccount:a:b:c' } },
  ],
  [
    'of a namespace with a slash',
    { ...YES, user: { ...CART, username: 'system:serviceaccount:a/sa/x:b' } },
  ],
  [
    'field E7: of a name that an OpenID provider gave',
    { ...YES, user: { ...CART, groups: ['system:authenticated', 'corp-oidc-users'] } },
  ],
  [
    'field E7: of the group of service accounts alone',
    { ...YES, user: { ...CART, groups: ['system:serviceaccounts'] } },
  ],
  [
    'field E7: of a service account in another namespace',
    { ...YES, user: { ...CART, groups: groupsOf('pay') } },
  ],
  ['field E7: of a user without a uid', { ...YES, user: { ...CART, uid: '' } }],
  ['of nobody', { authenticated: true, audiences: [TEST_AUDIENCE] }],
  ['answered with nothing', undefined],
])('a token that is %s proves nothing', async (_, status) => {
  expect(await open(status).ask(issuer.token())).toBe('ERR_TOKEN');
});

test.each([
  ['is down', new AgentError('ERR_CA_UNAVAILABLE', 'connect: refused')],
  ['refuses us', new AgentError('ERR_TOKEN', '401')],
  ['forbids it', new AgentError('ERR_CA_REJECTED', '403')],
])('while the Kubernetes API %s, nobody is judged', async (_, error) => {
  const { ask, asked } = open(async () => Promise.reject(error));
  const token = issuer.token();
  expect(await ask(token)).toBe('ERR_CA_UNAVAILABLE');
  expect(await ask(token)).toBe('ERR_CA_UNAVAILABLE');
  expect(asked).toHaveLength(2);
});

test('field: an API that answers after 12 s is waited for; one that does not answer is given up after 30 s', async () => {
  let answerIt: (status: unknown) => void = () => undefined;
  const { ask, asked, clock } = open(() => new Promise((resolve) => (answerIt = resolve)));
  const slow = ask(issuer.token());
  await clock.advanceBy(12_000);
  answerIt(YES);
  expect(await slow).toBe('spiffe://cluster.local/ns/shop/sa/cart');
  expect(asked).toHaveLength(1);
  const never = ask(issuer.token({ claims: { jti: 'another' } }));
  await clock.advanceBy(30_000);
  expect(await never).toBe('ERR_CA_UNAVAILABLE');
});

test('a yes is believed for 10 s, and calls at once share one review', async () => {
  const { ask, asked, clock } = open(YES);
  const token = issuer.token();
  await Promise.all(Array.from({ length: 50 }, () => ask(token)));
  await clock.advanceBy(9_999);
  await ask(token);
  expect(asked).toHaveLength(1);
  await ask(issuer.token({ claims: { jti: 'another' } }));
  expect(asked).toHaveLength(2);
  await clock.advanceBy(1);
  await ask(token);
  expect(asked).toHaveLength(3);
});

test('a yes is not believed beyond the end of the token', async () => {
  const { ask, asked, clock } = open(YES);
  const token = issuer.token({ claims: { exp: Math.floor(clock.now() / 1_000) + 3 } });
  await ask(token);
  await clock.advanceBy(3_000);
  expect(await ask(token)).toBe('ERR_TOKEN');
  expect(asked).toHaveLength(1);
});

test('a no is remembered for 10 s', async () => {
  const { ask, asked, clock } = open({ authenticated: false });
  const token = issuer.token();
  await ask(token);
  await clock.advanceBy(9_999);
  await ask(token);
  expect(asked).toHaveLength(1);
  await clock.advanceBy(1);
  expect(await ask(token)).toBe('ERR_TOKEN');
  expect(asked).toHaveLength(2);
});

test('field E7: a token that was made for another uid than the one that the API server names proves nothing', async () => {
  const { ask } = open(YES);
  const tokenOf = (uid: string) =>
    issuer.token({
      claims: { 'kubernetes.io': { namespace: 'shop', serviceaccount: { name: 'cart', uid } } },
    });
  expect(await ask(tokenOf('cart-0'))).toBe('ERR_TOKEN');
  expect(await ask(tokenOf('cart-1'))).toBe('spiffe://cluster.local/ns/shop/sa/cart');
});

const seconds = (at: number) => Math.floor(at / 1_000);
test.each<[string, () => string, string]>([
  ['no JWT', () => 'kt1_secret', 'not mine'],
  ['a JWT of two parts', () => issuer.token().split('.').slice(0, 2).join('.'), 'not mine'],
  ['for another audience', () => issuer.token({ claims: { aud: ['vault'] } }), 'ERR_TOKEN'],
  ['for no audience', () => issuer.token({ claims: { aud: undefined } }), 'ERR_TOKEN'],
  ['past its end', () => issuer.token({ claims: { exp: seconds(Date.now()) - 1 } }), 'ERR_TOKEN'],
  ['without an end', () => issuer.token({ claims: { exp: undefined } }), 'ERR_TOKEN'],
])('what is %s is not sent anywhere', async (_, token, want) => {
  const { ask, asked } = open(YES);
  expect(await ask(token())).toBe(want);
  expect(asked).toHaveLength(0);
});

describe('where the cluster publishes its issuer and keys', () => {
  const publish = (...by: readonly TokenIssuer[]) => ({
    '/.well-known/openid-configuration': { issuer: TEST_ISSUER },
    '/openid/v1/jwks': { keys: by.flatMap((each) => JSON.parse(each.jwks()).keys) },
  });
  const other = makeTokenIssuer();

  test.each<[string, () => string]>([
    ['of another issuer', () => issuer.token({ claims: { iss: 'https://elsewhere.test' } })],
    ['of another key', () => other.token()],
    [
      'with another key under the name of theirs',
      () => other.token({ header: { kid: issuer.kid } }),
    ],
    ['without a signature', () => `${issuer.token().split('.').slice(0, 2).join('.')}.AA`],
  ])('a token %s is refused without a review', async (_, token) => {
    const { ask, asked } = open(YES, () => publish(issuer));
    expect(await ask(token())).toBe('ERR_TOKEN');
    expect(asked).toHaveLength(0);
    expect(await ask(issuer.token())).toBe('spiffe://cluster.local/ns/shop/sa/cart');
    expect(asked).toHaveLength(1);
  });

  test('field: an API server that takes 12 s to publish them keeps no caller waiting for longer than 5 s, and is heard to its end', async () => {
    let publishIt: (published: Record<string, unknown>) => void = () => undefined;
    const later = new Promise<Record<string, unknown>>((resolve) => (publishIt = resolve));
    const at = (path: string) => later.then((all) => all[path]);
    const paths = Object.keys(publish(issuer));
    const { ask, asked, clock } = open(YES, () =>
      Object.fromEntries(paths.map((path) => [path, at(path)])),
    );
    const first = ask(other.token());
    await clock.advanceBy(5_000);
    expect(await first).toBe('spiffe://cluster.local/ns/shop/sa/cart');
    expect(asked).toHaveLength(1);
    await clock.advanceBy(10_000);
    publishIt(publish(issuer));
    await settle();
    expect(await ask(other.token({ claims: { jti: 'another' } }))).toBe('ERR_TOKEN');
    expect(asked).toHaveLength(1);
  });

  test('a key that is new is looked for again, at most every 30 s', async () => {
    let published = publish(issuer);
    const { ask, asked, clock } = open(YES, () => published);
    await ask(issuer.token());
    published = publish(issuer, other);
    expect(await ask(other.token())).toBe('ERR_TOKEN');
    await clock.advanceBy(30_000);
    expect(await ask(other.token())).toBe('spiffe://cluster.local/ns/shop/sa/cart');
    expect(asked).toHaveLength(2);
  });

  test('a change of the issuer leaves tokens of the one before good', async () => {
    let published = publish(issuer);
    const { ask, clock } = open(YES, () => published);
    await ask(issuer.token());
    published = {
      ...published,
      '/.well-known/openid-configuration': { issuer: 'https://new.test' },
    };
    await clock.advanceBy(5 * 60_000);
    expect(await ask(issuer.token({ claims: { iss: 'https://new.test' } }))).toBe(
      'spiffe://cluster.local/ns/shop/sa/cart',
    );
    expect(await ask(issuer.token({ claims: { jti: 'old' } }))).toBe(
      'spiffe://cluster.local/ns/shop/sa/cart',
    );
  });
});

describe('reviews are limited', () => {
  const tokenOf = (number: number) => issuer.token({ claims: { jti: String(number) } });

  test('to 20 a second for one address, and to 100 in all, with a part for those who come seldom', async () => {
    const { ask, asked } = open(YES);
    for (let at = 0; at < 200; at += 1) await ask(tokenOf(at), '10.0.0.1');
    expect(asked).toHaveLength(20);
    for (let at = 200; at < 400; at += 1) await ask(tokenOf(at), `10.0.1.${at % 10}`);
    expect(asked.length).toBeLessThanOrEqual(100);
    expect(asked.length).toBeGreaterThan(70);
    expect(await ask(tokenOf(-1), '10.0.2.1')).toBe('spiffe://cluster.local/ns/shop/sa/cart');
  });

  test('to 8 at once', async () => {
    const answers: (() => void)[] = [];
    const { ask, asked } = open(() => new Promise((done) => answers.push(() => done(YES))));
    const asking = Array.from({ length: 12 }, (_, number) => ask(tokenOf(number)));
    await until('eight questions', async () => asked.length === 8);
    for (let turn = 0; turn < 50; turn += 1) await new Promise((done) => setImmediate(done));
    expect(asked).toHaveLength(8);
    for (let answered = 0; answered < 12; answered += 1) {
      await until('a question', async () => answers.length > 0);
      answers.shift()!();
    }
    expect(new Set(await Promise.all(asking))).toEqual(
      new Set(['spiffe://cluster.local/ns/shop/sa/cart']),
    );
  });

  test('and one that is refused for that is not remembered', async () => {
    const { ask, clock } = open(YES);
    for (let at = 0; at < 20; at += 1) await ask(tokenOf(at));
    expect(await ask(tokenOf(20))).toBe('ERR_CA_REJECTED');
    await clock.advanceBy(1_000);
    expect(await ask(tokenOf(20))).toBe('spiffe://cluster.local/ns/shop/sa/cart');
  });
});
