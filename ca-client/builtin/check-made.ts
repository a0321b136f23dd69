import { AgentError } from '../../agent/base/errors';
import { parseCertificate, uriNames } from '../../agent/identity/certificate';
import type { CertificateSpec } from '../../agent/identity/engine';

/**
 * Reads a certificate back before it leaves: it says what was decided, or it goes nowhere. What is looked at is what would do harm: whom
 * it is for, whose key it certifies, for how long, whether it could sign others. Costs some 25 microseconds.
 *
 * @throws AgentError ERR_BUG naming what differs.
 */
export function assertAsDecided(der: Uint8Array, spec: CertificateSpec): void {
  const made = parseCertificate(der, 'certificate');
  const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
  const uris = spec.profile.kind === 'server' ? [] : [spec.profile.uri];
  const facts: readonly (readonly [name: string, holds: boolean])[] = [
    ['its serial number', made.serial === Buffer.from(spec.serial).toString('hex')],
    ['its issuer', same(made.issuerDer, spec.issuerDer)],
    ['its subject', same(made.subjectDer, spec.subjectDer)],
    ['its key', same(made.publicKey.spkiDer, spec.spkiDer)],
    ['its validity', made.notBeforeAt === spec.notBeforeAt && made.notAfterAt === spec.notAfterAt],
    ['its SPIFFE ID', uriNames(made).join('\n') === uris.join('\n')],
    ['that it is no CA', made.basicConstraints?.ca !== true && made.keyUsage?.usages.includes('keyCertSign') !== true],
  ];
  const wrong = facts.find(([, holds]) => !holds);
  if (wrong) throw new AgentError('ERR_BUG', `sign: the certificate that was made differs from what was decided in ${wrong[0]}`);
}
