import { atOnce } from '../../agent/base/steps';
import { type Crl, readCrlSteps } from '../../agent/identity/crl';

/** One list, DER, read at once; throws what it is refused for. */
export function parseCrl(der: Uint8Array, field = 'crl'): Crl {
  const { refusal, ...crl } = atOnce(readCrlSteps(der, field));
  if (refusal) throw refusal;
  return crl;
}
