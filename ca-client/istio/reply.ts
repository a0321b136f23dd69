import { type AgentError, errorText, invalid } from '../../agent/base/errors';
import { scanPem } from '../../agent/base/pem';
import { parseCertificateReply } from './wire/messages';

/** The certificates of a reply, in order. */
export interface Reply {
  readonly certificatesDer: readonly Uint8Array[];
  /** What could not be read beside them. */
  readonly damaged: readonly string[];
}

/** More than istiod sends with the largest root bundle in sensible use. */
const MAX_CERTIFICATES = 256;

/**
 * Reads a reply: each element one certificate or several, as PEM. An element behind the first may be damaged, or empty as an absent root
 * is; what the leaf needs is for the gate to say.
 *
 * @throws AgentError ERR_CA_RESPONSE (retry slow) with `field` and `rule`.
 */
export function readReply(bytes: Uint8Array): Reply {
  try {
    const certificatesDer: Uint8Array[] = [];
    const damaged: string[] = [];
    parseCertificateReply(bytes).forEach((element, index) => {
      if (index > 0 && element.trim() === '') return;
      const field = index === 0 ? 'leaf' : `reply element ${index + 1}`;
      for (const item of readElement(element, field)) {
        if (item instanceof Uint8Array) certificatesDer.push(item);
        else if (certificatesDer.length === 0) throw item;
        else damaged.push(item.message);
      }
      if (certificatesDer.length > MAX_CERTIFICATES)
        throw invalid(
          'ERR_PARSE',
          'reply',
          `must not hold more than ${MAX_CERTIFICATES} certificates`,
        );
    });
    return { certificatesDer, damaged };
  } catch (caught) {
    const { field, rule } = caught as AgentError;
    throw invalid('ERR_CA_RESPONSE', field ?? 'reply', rule ?? errorText(caught), {
      retry: 'slow',
      cause: caught,
    });
  }
}

function readElement(element: string, field: string): (Uint8Array | AgentError)[] {
  try {
    return scanPem(Buffer.from(element), field).map((item) => {
      if (!('label' in item)) return item;
      if (item.label === 'CERTIFICATE') return item.der;
      item.der.fill(0);
      return invalid('ERR_PARSE', field, `must be CERTIFICATE, not ${item.label}`);
    });
  } catch (caught) {
    return [caught as AgentError];
  }
}
