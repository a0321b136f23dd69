import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { KubeEvent } from '../../agent/kube/kube-api';
import { isKubeStatus } from '../../agent/kube/kube-error';
import { type Kube, type KubeObject, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

describeWith('kube')('the API of a real kube-apiserver', () => {
  let kube: Kube;
  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart');
  });
  afterAll(() => kube?.stop());

  const CONFIG_MAPS = '/api/v1/namespaces/shop/configmaps';
  const configMap = (name: string, data: object, more: object = {}) => ({
    kind: 'ConfigMap',
    apiVersion: 'v1',
    metadata: { name, ...more },
    data,
  });

  test('objects are made, read, changed on one condition and removed', async () => {
    const made = await kube.api.request<KubeObject>('POST', CONFIG_MAPS, {
      body: configMap('one', { a: '1' }),
    });
    const change = (a: string) =>
      kube.api.request('PUT', `${CONFIG_MAPS}/one`, {
        body: configMap('one', { a }, { resourceVersion: made.metadata.resourceVersion }),
      });
    const both = await Promise.allSettled([change('2'), change('3')]);
    const lost = both.filter((each) => each.status === 'rejected');
    expect(lost).toHaveLength(1);
    expect(isKubeStatus(lost[0]!.reason, 409)).toBe(true);
    expect(lost[0]!.reason).toMatchObject({ reason: 'Conflict', retry: 'soon' });
    await kube.api.request('DELETE', `${CONFIG_MAPS}/one`);
    await expect(kube.api.request('GET', `${CONFIG_MAPS}/one`)).rejects.toMatchObject({
      status: 404,
      reason: 'NotFound',
      retry: 'slow',
    });
  });

  test('a watch tells what happens from a version on', async () => {
    const { metadata } = await kube.api.request<KubeObject>('GET', CONFIG_MAPS);
    const stop = new AbortController();
    const seen: string[] = [];
    const onEvent = ({ type, object }: KubeEvent<KubeObject>) => {
      // The cluster's own controllers write here too, e.g. kube-root-ca.crt.
      if (object.metadata.name === 'two') seen.push(`${type} two`);
    };
    const watching = kube.api.watch(
      `${CONFIG_MAPS}?resourceVersion=${metadata.resourceVersion}`,
      onEvent,
      stop.signal,
    );
    await kube.api.request('POST', CONFIG_MAPS, { body: configMap('two', {}) });
    await kube.api.request('PATCH', `${CONFIG_MAPS}/two`, { body: { data: { b: '1' } } });
    await kube.api.request('DELETE', `${CONFIG_MAPS}/two`);
    await until('three events', async () => seen.length >= 3);
    stop.abort();
    await expect(watching).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(seen).toEqual(['ADDED two', 'MODIFIED two', 'DELETED two']);
  });

  test('a service account is known by its token, and a token that was replaced in its file is taken at once', async () => {
    const tokenFile = join(tempDir(), 'token');
    writeFileSync(tokenFile, await kube.token('shop', 'cart', { audiences: ['istio-ca'] }));
    const cart = await kube.as({ tokenFile });
    const whoAmI = { body: { kind: 'SelfSubjectReview', apiVersion: 'authentication.k8s.io/v1' } };
    const ask = () =>
      cart.request<KubeObject>('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', whoAmI);
    await expect(ask()).rejects.toMatchObject({
      code: 'ERR_TOKEN',
      retry: 'slow',
      status: 401,
      hint: expect.stringContaining('another audience'),
    });
    writeFileSync(tokenFile, await kube.token('shop', 'cart'));
    expect((await ask()).status.userInfo.username).toBe('system:serviceaccount:shop:cart');
    await expect(cart.request('GET', '/api/v1/namespaces/shop/secrets')).rejects.toMatchObject({
      code: 'ERR_CA_REJECTED',
      status: 403,
      retry: 'slow',
    });
  });
});
