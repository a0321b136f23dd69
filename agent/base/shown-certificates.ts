import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';

/** The longest path; what comes after is not looked at. */
const MAX_SHOWN = 8;

/** What the other side showed in its Certificate message, leaf first, as it came: unverified. Empty where it showed nothing. */
export function shownCertificates(socket: TLSSocket): readonly X509Certificate[] {
  const shown: X509Certificate[] = [];
  let next = socket.getPeerX509Certificate();
  for (; next !== undefined && shown.length < MAX_SHOWN; next = next.issuerCertificate)
    shown.push(next);
  return shown;
}
