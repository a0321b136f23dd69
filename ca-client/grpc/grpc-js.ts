/**
 * What a call needs of grpc-js, by its own files: the package's front door also brings channels, load balancers, resolvers and the
 * runtime's HTTP/2, which take twenty milliseconds of a start. No other file names an inner file of it, and
 * test/contract/library-internals.test.ts names what an upgrade of it breaks here.
 */
export { Metadata } from '@grpc/grpc-js/build/src/metadata';
export { Http2SubchannelCall } from '@grpc/grpc-js/build/src/subchannel-call';
