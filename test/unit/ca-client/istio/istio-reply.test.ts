import { describe, expect, test } from '@jest/globals';
import { certificatesPem } from '../../../../agent/identity/certificate';
import { readReply } from '../../../../ca-client/istio/reply';
import { encodeCertificateReply } from '../../../../ca-client/istio/wire/messages';
import { makeTestCa } from '../../../support/certs';
import { outcome } from '../../../support/outcome';

const made = Promise.all([
  makeTestCa({ name: 'a' }),
  makeTestCa({ name: 'b' }),
  makeTestCa({ name: 'c' }),
]);
const pem = (...ders: readonly Uint8Array[]) => certificatesPem(ders).toString();
const read = (...elements: readonly string[]) => readReply(encodeCertificateReply(elements));

describe('a reply', () => {
  test.each<[string, (a: string, b: string, c: string) => string[]]>([
    ['C10 one certificate an element', (a, b, c) => [a, b, c]],
    ['C10 all in one element', (a, b, c) => [a + b + c]],
    ['several roots in the last element', (a, b, c) => [a, b + c]],
    ['C9 with CRLF', (a, b, c) => [a, b, c].map((each) => each.replaceAll('\n', '\r\n'))],
    ['C9 without a newline at the end', (a, b, c) => [a.trimEnd(), b.trimEnd(), c.trimEnd()]],
    [
      'C9 with a byte order mark and comments',
      (a, b, c) => [`\ufeff${a}`, `# intermediate\n${b}`, `${c}# end\n`],
    ],
    ['with an empty element for a root', (a, b, c) => [a, b, c, '\n']],
  ])('%s is read in order', async (_, elements) => {
    const ders = (await made).map(({ certificateDer }) => Buffer.from(certificateDer));
    const [a, b, c] = ders.map((der) => pem(der)) as [string, string, string];
    expect(read(...elements(a, b, c))).toEqual({ certificatesDer: ders, damaged: [] });
  });

  test.each([
    ['no PEM', 'garbage', 'must hold at least one PEM block'],
    ['a NUL', '-----BEGIN\0', 'must not contain NUL'],
    [
      'a certificate with a trust of its own',
      '-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n',
      'must be CERTIFICATE, not TRUSTED CERTIFICATE',
    ],
    ['nothing', '', 'must hold at least one PEM block'],
  ])(
    'C9 whose first element is %s is refused; a later one is left out and told',
    async (_, element, rule) => {
      const [a, b] = (await made).map(({ certificateDer }) => Buffer.from(certificateDer));
      expect(outcome(() => read(element))).toEqual({ field: 'leaf', rule });
      const { certificatesDer, damaged } = read(pem(a!), element, pem(b!));
      expect(certificatesDer).toEqual([a, b]);
      expect(damaged).toEqual(element === '' ? [] : [expect.stringContaining(rule)]);
    },
  );

  test.each<[string, () => string[], string]>([
    ['no element', () => [], 'must hold at least one certificate'],
    ['a thousand elements', () => Array(1_000).fill('x'), 'must not hold more than 256 elements'],
  ])('C11 C12 of %s is refused, to be asked for again slowly', (_, elements, rule) => {
    expect(outcome(() => read(...elements()))).toEqual({ field: 'reply', rule });
    expect(() => read(...elements())).toThrow(
      expect.objectContaining({ code: 'ERR_CA_RESPONSE', retry: 'slow' }),
    );
  });

  test('C12 of a thousand certificates in one element is refused', async () => {
    const [a] = await made;
    const element = pem(...Array<Uint8Array>(400).fill(a!.certificateDer));
    expect(outcome(() => read(element))).toEqual({
      field: 'reply',
      rule: 'must not hold more than 256 certificates',
    });
  });
});
