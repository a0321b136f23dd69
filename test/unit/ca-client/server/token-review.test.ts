import { expect, test } from '@jest/globals';
import { AgentError } from '../../../../agent/base/errors';
import { Secret } from '../../../../agent/base/secret';
import { formatSpiffeId } from '../../../../agent/identity/spiffe-id';
import { createTokenReviewAuthenticator } from '../../../../ca-client/builtin/server/token-review';
import type { KubeApi, KubeMethod, KubeRequestOptions } from '../../../../ca-client/kubernetes/kube-api';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';
import { makeTokenIssuer, TEST_AUDIENCE } from '../../../support/tokens';

const issuer = makeTokenIssuer();
const YES = { authenticated: true, audiences: [TEST_AUDIENCE], user: { username: 'system:serviceaccount:shop:cart' } };

function open(status: unknown | (() => Promise<unknown>)) {
  const asked: { method: KubeMethod; path: string; body: unknown }[] = [];
  const api = {
    request: async (method: KubeMethod, path: string, options?: KubeRequestOptions) => {
      asked.push({ method, path, body: options?.body });
      return { status: typeof status === 'function' ? await status() : status };
    },
  } as Pick<KubeApi, 'request'>;
  const clock = new TestClock(Date.now());
  const options = { api, audiences: [TEST_AUDIENCE], trustDomain: 'cluster.local', aliases: [] };
  const authenticator = createTokenReviewAuthenticator(options, testDeps({ clock }));
  const ask = (token: string) =>
    authenticator.authenticate({ bearer: new Secret(token), certificatesDer: [] }, new AbortController().signal).then(
      (caller) => (caller === undefined ? 'not mine' : formatSpiffeId(caller.id)),
      (error) => error.code,
    );
  return { ask, asked, clock, authenticator };
}

test('a token that the Kubernetes API vouches for names its service account, and its pod', async () => {
  const token = issuer.token();
  const extra = { 'authentication.kubernetes.io/pod-name': ['cart-7'], 'authentication.kubernetes.io/pod-uid': ['u-1'] };
  const { authenticator, asked } = open({ ...YES, user: { ...YES.user, extra } });
  const caller = await authenticator.authenticate({ bearer: new Secret(token), certificatesDer: [] }, new AbortController().signal);
  expect(caller).toMatchObject({ method: 'token-review', detail: { pod: 'cart-7', podUid: 'u-1' } });
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
  ['of a user', { ...YES, user: { username: 'alice' } }],
  ['of a node', { ...YES, user: { username: 'system:node:n1' } }],
  ['of a name with five parts', { ...YES, user: { username: 'system:serviceaccount:a:b:c' } }],
  ['of a namespace with a slash', { ...YES, user: { username: 'system:serviceaccount:a/sa/x:b' } }],
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

test('an API that does not answer is given up after 5 s', async () => {
  const { ask, clock } = open(() => new Promise(() => undefined));
  const answer = ask(issuer.token());
  await clock.advanceBy(5_000);
  expect(await answer).toBe('ERR_CA_UNAVAILABLE');
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
  await ask(token);
  expect(asked).toHaveLength(2);
});

test('a no is remembered for a second', async () => {
  const { ask, asked, clock } = open({ authenticated: false });
  const token = issuer.token();
  await ask(token);
  await ask(token);
  expect(asked).toHaveLength(1);
  await clock.advanceBy(1_000);
  expect(await ask(token)).toBe('ERR_TOKEN');
  expect(asked).toHaveLength(2);
});

test('what is no JWT is not sent anywhere', async () => {
  const { ask, asked } = open(YES);
  expect(await ask('kt1_secret')).toBe('not mine');
  expect(asked).toHaveLength(0);
});

test('thousands of tokens do not grow the memory beyond its bound', async () => {
  const { ask, asked } = open(YES);
  const tokens = Array.from({ length: 4_200 }, (_, number) => `e30.${Buffer.from(JSON.stringify({ number })).toString('base64url')}.x`);
  for (const token of tokens) await ask(token);
  await ask(tokens.at(-1)!);
  expect(asked).toHaveLength(4_200);
  await ask(tokens[0]!);
  expect(asked).toHaveLength(4_201);
});
