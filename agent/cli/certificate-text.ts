import { readPem } from '../base/pem';
import type { CertificateFacts } from '../identity/x509';
import { facts, instant } from './render';

/**
 * Reads every certificate of a PEM text. A key among them is wiped and left out.
 *
 * @throws AgentError ERR_PARSE.
 */
export async function inspectPem(
  pem: Uint8Array,
  field: string,
): Promise<{ readonly der: Uint8Array; readonly facts: CertificateFacts }[]> {
  const { inspectCertificate } = await import('../identity/x509');
  const blocks = readPem(pem, field);
  for (const block of blocks) if (block.label !== 'CERTIFICATE') block.der.fill(0);
  return blocks
    .filter((block) => block.label === 'CERTIFICATE')
    .map(({ der }, index) => ({
      der,
      facts: inspectCertificate(der, `${field}, certificate ${index + 1}`),
    }));
}

/** A certificate in lines for people. */
export function certificateText(
  certificate: CertificateFacts,
  now: number,
  indent: string,
): string {
  return facts(
    [
      ...certificate.uris.map((uri) => ['identity', uri] as const),
      ...certificate.otherNames.map((name) => ['name', name] as const),
      ['subject', certificate.subject || '(empty)'],
      ['issuer', certificate.issuer],
      ['serial', certificate.serial],
      ['valid from', instant(certificate.notBefore, now)],
      ['valid until', instant(certificate.notAfter, now)],
      ['key', certificate.key],
      ['signed with', certificate.signature],
      ['certifies', certificate.ca ? 'other certificates (CA)' : undefined],
      ['key usage', certificate.keyUsage.join(', ')],
      ['purposes', certificate.extendedKeyUsage.join(', ')],
      ['SHA-256', certificate.sha256],
    ],
    indent,
  );
}
