import { invalid } from '../base/errors';
import { readPem, writePem } from '../base/pem';

/**
 * Takes a key and its certificates out of the one file that they share, as kubelets project a PodCertificateRequest (`credentialBundle`):
 * the order of key and certificates does not matter, that of the certificates does.
 *
 * @throws AgentError ERR_PARSE with the field `credential bundle`: no certificate in it, or not exactly one key.
 */
export function splitCredentialBundle(pem: Uint8Array): {
  readonly keyPem: Buffer;
  readonly certChainPem: Buffer;
} {
  const field = 'credential bundle';
  const blocks = readPem(pem, field);
  try {
    const [keys, certificates] = [true, false].map((wanted) =>
      blocks.filter(({ label }) => label.endsWith('PRIVATE KEY') === wanted),
    );
    if (keys!.length !== 1)
      throw invalid('ERR_PARSE', field, `must hold exactly one private key, not ${keys!.length}`);
    if (certificates!.length === 0)
      throw invalid('ERR_PARSE', field, 'must hold a certificate beside the key');
    const text = (all: typeof blocks) =>
      Buffer.concat(all.map(({ label, der }) => writePem(label, der)));
    return { keyPem: text(keys!), certChainPem: text(certificates!) };
  } finally {
    for (const { der } of blocks) der.fill(0);
  }
}
