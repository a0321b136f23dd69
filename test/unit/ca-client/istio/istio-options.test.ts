import { describe, expect, test } from '@jest/globals';
import { checkIstioOptions, type IstioCaOptions } from '../../../../ca-client/istio/options';
import { outcome } from '../../../support/outcome';

const check = (options: Partial<IstioCaOptions>) =>
  outcome(() => checkIstioOptions({ name: 'istiod', address: 'istiod:15012', ...options }));

describe('the options of an Istio CA', () => {
  test('have upstream’s defaults; the server’s name is the host of the address, localhost too', () => {
    expect(check({ address: 'localhost:15012' })).toMatchObject({
      where: { host: 'localhost', port: 15_012 },
      serverName: 'localhost',
      plaintext: false,
      tokenPath: './var/run/secrets/tokens/istio-token',
      mountedRoot: './var/run/secrets/istio/root-cert.pem',
      rootSource: { kind: 'file', path: './var/run/secrets/istio/root-cert.pem' },
      tokenAudiences: ['istio-ca'],
      clusterId: '',
      certSigner: '',
    });
    expect(check({ serverName: 'istiod.istio-system.svc' })).toMatchObject({
      serverName: 'istiod.istio-system.svc',
    });
  });

  test('do not send a token in the clear unless told to', () => {
    expect(check({ address: 'istiod:15010' })).toEqual({
      field: 'ca-address',
      rule: 'port 15010 is without TLS: the token would be sent in plaintext',
    });
    expect(check({ address: 'istiod:15010', allowPlaintext: true })).toMatchObject({
      plaintext: true,
    });
    expect(check({ allowPlaintext: true })).toMatchObject({ plaintext: false });
  });

  test.each([
    ['Authorization', 'x', 'is reserved'],
    ['clusterID', 'x', 'is reserved'],
    ['grpc-timeout', '1S', 'is reserved'],
    ['trace-bin', 'x', 'is reserved'],
    [':path', '/', 'must be of letters, digits, "-", "_" and "."'],
    ['a b', 'x', 'must be of letters, digits, "-", "_" and "."'],
    ['ok', 'a\r\nb: c', 'must be printable ASCII of up to 8192 characters'],
    ['ok', 'ü', 'must be printable ASCII of up to 8192 characters'],
  ])('refuse the header %s', (name, value, rule) => {
    expect(check({ headers: new Map([[name, value]]) })).toEqual({
      field: `CA header ${name}`,
      rule,
    });
  });

  test('refuse an address that is none, and a cluster id that no header can carry', () => {
    expect(check({ address: 'https://istiod:15012' })).toMatchObject({ field: 'ca-address' });
    expect(check({ clusterId: 'a\nb' })).toMatchObject({ field: 'cluster id' });
  });
});
