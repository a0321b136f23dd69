/**
 * What one client, and all of them together, may take. Whoever can open the socket holds the identity already, so these bounds are there
 * for the other clients: one that is broken or hostile must not take the secret away from the rest.
 */
export const LIMITS = {
  /** Bytes of one request. Envoy's first message carries its node with metadata and its list of extensions, some 100 KB in the wild. */
  requestBytes: 512 * 1024,
  /** Names that one stream may watch. Envoy asks for one name a stream. */
  namesPerStream: 1_000,
  /** Bytes of one name: two paths of PATH_MAX would be longer, but nobody names such files. */
  nameBytes: 4 * 1024,
  /** Open connections. Of each some 6 KB stay with the C library when it is gone, of a stream some 11 KB. */
  connections: 2_048,
  /** Of one socket of many in one process, where descriptors are few: an Envoy has two or three. */
  leastConnections: 8,
  /** Open streams in one connection, told to the client by HTTP/2 SETTINGS, and in all of them. A gateway has one for each certificate. */
  streamsPerConnection: 1_024,
  streams: 2_048,
  /** Calls of FetchSecrets that wait for a secret. */
  fetches: 500,
  /** Audiences of one JWT-SVID, and bytes of each. More than one is one too many already (JWT-SVID section 7.2). */
  audiences: 32,
  audienceBytes: 1_024,
  /** At the cap, a connection with no more streams than this may displace a stream of a connection that has more. */
  modestStreams: 16,
  /** Bytes of resources in one response; what does not fit goes into the next one. Clients of gRPC take 4 MiB by default. */
  responseBytes: 1024 * 1024,
  /** Files that are watched for `file-cert:` and `file-root:` names at a time, and the size of each. */
  fileNames: 256,
  fileBytes: 1024 * 1024,
  /** Unknown names that are remembered for `status`. */
  unknownNames: 100,
  /** Characters of a foreign name that `status` and the log show. */
  shownName: 200,
  /** All headers of a call, as HTTP/2 counts them. */
  headerBytes: 32 * 1024,
  /** What all calls together hold of requests that are not whole; beyond it the connection that holds the most is closed. */
  incompleteBytes: 64 * 1024 * 1024,
} as const;

/** How long a client may be silent or slow, in sweeps of `sweepMs`: ages are counted, not measured, so a jump of the clock ends nothing. */
export const PATIENCE = {
  sweepMs: 2_000,
  /** A connection that never sent the 24 bytes with which HTTP/2 begins. */
  silentConnectionSweeps: 3,
  /** A stream without its first message. */
  silentStreamSweeps: 15,
  /** A response without ACK or NACK: after that a newer secret is sent all the same, since simple clients never acknowledge. */
  unacknowledgedSweeps: 3,
  /** A response that the client does not read: its connection is closed. */
  unreadSweeps: 30,
  /** A connection that was said goodbye to and has no streams any more. */
  goodbyeSweeps: 3,
  /** Connections and streams that came within one sweep and are a storm, after which memory is given back; below this the storm is over. */
  stormArrivals: 500,
  calmArrivals: 50,
  /** A ping of the server's own, whose answer has to come before the next: finds clients that are stopped or gone without a word. */
  probeMs: 2 * 60_000,
  /** Pings to a connection without streams, before it is said goodbye to. */
  idleProbes: 2,
} as const;
