/**
 * What a client of one server needs of grpc-js, by its own files: the package's front door also brings load balancers, a resolver and
 * statistics that no call of ours uses.
 */
// The first, as in the front door: the files of clients require each other in a circle, which opens here alone.
import '@grpc/grpc-js/build/src/channel';
import { setup as setUpPickFirst } from '@grpc/grpc-js/build/src/load-balancer-pick-first';
import { setup as setUpNames } from '@grpc/grpc-js/build/src/resolver-dns';
import { setup as setUpAddresses } from '@grpc/grpc-js/build/src/resolver-ip';

export { CallCredentials } from '@grpc/grpc-js/build/src/call-credentials';
export { ChannelCredentials } from '@grpc/grpc-js/build/src/channel-credentials';
export { Client } from '@grpc/grpc-js/build/src/client';
export { Status as GrpcStatus } from '@grpc/grpc-js/build/src/constants';
export { Metadata } from '@grpc/grpc-js/build/src/metadata';

setUpPickFirst();
setUpNames();
setUpAddresses();
