// The contract, read from its .proto files when the process starts. Messages are
// plain objects: fields in camelCase, enums as their names, bytes as Buffers, times
// and sizes as numbers; a oneof's own name holds the name of the field that is set.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const PACKAGE = 'stagecoach.plugin.v1.';

const definition = protoLoader.loadSync('plugin.proto', {
  includeDirs: [fileURLToPath(new URL('../proto', import.meta.url))],
  longs: Number, enums: String, defaults: true, oneofs: true,
});

// Searches nest: the contract leaves it to the storage to refuse one that nests too
// deep, and protobufjs (as the loader has it) would break the session at 100.
const protobuf = createRequire(createRequire(import.meta.url).resolve('@grpc/proto-loader'))('protobufjs');
protobuf.Reader.recursionLimit = protobuf.util.recursionLimit = 6000;

/** The services Plugin and Peer, as grpc-js has them. */
export const { Plugin, Peer } = grpc.loadPackageDefinition(definition).stagecoach.plugin.v1;

/** The words of an enum, such as 'FilterEvent' or 'FilterInterest.Effect'. */
export function words(name) {
  const [outer, inner] = name.split('.');
  const { type } = definition[PACKAGE + outer];
  return (inner ? type.enumType.find((e) => e.name === inner) : type).value.map((v) => v.name);
}

/**
 * Makes a TypeError of a word that an enum does not have: the encoder would
 * silently take its first one.
 */
export function checkWord(word, name) {
  if (!words(name).includes(word)) throw new TypeError(`'${word}' is none of ${words(name).join(', ')}`);
  return word;
}

// gRPC's own limit of 4 MiB is too small for a large mailbox's columns.
export const OPTIONS = {
  'grpc.max_receive_message_length': 64 << 20, 'grpc.max_send_message_length': 64 << 20,
};
