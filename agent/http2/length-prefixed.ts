/** Of a message in a body of gRPC: a flag and its length. */
export const PREFIX_BYTES = 5;

/**
 * A message as a body of gRPC carries it, not packed.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md "Length-Prefixed-Message"
 */
export function lengthPrefixed(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  framed.writeUInt8(0, 0);
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, PREFIX_BYTES);
  return framed;
}
