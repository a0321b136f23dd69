import type { Crl } from '../../agent/identity/crl';

/** Every serial number of a list, lower-case hex, in its order. */
export function serialsOf({ revoked: { der, table } }: Crl): string[] {
  const places = [...table].filter((each) => each !== 0).sort((a, b) => a - b);
  return places.map((place) => {
    const content = Buffer.from(der.subarray(place + 1, place + 1 + der[place]!));
    return (content.length > 1 && content[0] === 0 ? content.subarray(1) : content).toString('hex');
  });
}
