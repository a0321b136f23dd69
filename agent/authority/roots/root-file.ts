import { invalid } from '../../base/errors';
import { readPem, writePem } from '../../base/pem';
import { Secret } from '../../base/secret';
import {
  type Certificate,
  certificatesPem,
  isCa,
  parseCertificate,
} from '../../identity/certificate';
import { isSelfSigned } from '../../identity/chain';
import { readPrivateKey } from '../../identity/keys';
import type { CaFiles } from '../directory/ca-files';
import { certificateId } from '../signers';

/** What is to be added: roots, and a signer that may follow. */
export interface Candidate {
  /** At least one. */
  readonly roots: readonly Certificate[];
  readonly signer:
    | { readonly id: string; readonly files: Omit<CaFiles, 'dir' | 'rootPem'> }
    | undefined;
}

/**
 * Reads a PEM file of roots, and with a private key in it the signer that the key belongs to.
 *
 * @param known  The roots that are trusted already: an intermediate under one of them needs no root of its own.
 * @throws       AgentError ERR_PARSE.
 */
export function readRootFile(pem: Buffer, known: readonly Certificate[]): Candidate {
  const blocks = readPem(pem, 'root file');
  const certificates = blocks
    .filter(({ label }) => label === 'CERTIFICATE')
    .map(({ der }) => parseCertificate(der, 'root file'));
  const keys = blocks.filter(({ label }) => label !== 'CERTIFICATE');
  const unfit = certificates.find((each) => !isCa(each));
  if (unfit)
    throw invalid(
      'ERR_PARSE',
      'root file',
      `must hold CA certificates only, not ${unfit.subject || unfit.serial}`,
    );
  const roots = certificates.filter((each) => isSelfSigned(each));
  const signer = keys.length === 0 ? undefined : readFileSigner(keys, certificates);
  for (const { der } of keys) der.fill(0);
  if (roots.length > 0) return { roots, signer };
  if (!signer) throw invalid('ERR_PARSE', 'root file', 'must hold a self-signed CA certificate');
  // An intermediate under a root that is trusted already.
  return { roots: known, signer };
}

function readFileSigner(
  keys: readonly { label: string; der: Buffer }[],
  certificates: readonly Certificate[],
): Candidate['signer'] {
  const keyPem = Buffer.concat(keys.map(({ label, der }) => writePem(label, der)));
  const { spkiDer } = readPrivateKey(keyPem, 'root file');
  const signer = certificates.find(
    ({ publicKey }) => Buffer.compare(publicKey.spkiDer, spkiDer) === 0,
  );
  if (!signer)
    throw invalid('ERR_PARSE', 'root file', 'must hold the certificate that its key belongs to');
  const certPem = certificatesPem([signer.der]);
  const above = certificates.filter((each) => each !== signer && !isSelfSigned(each));
  // Above a root too: a root of before may have certified it.
  const chainPem = certificatesPem([signer.der, ...above.map(({ der }) => der)]);
  return { id: certificateId(signer), files: { keyPem: new Secret(keyPem), certPem, chainPem } };
}
