// Write a Stagecoach plugin in JavaScript: derive from Filter, Deliverer,
// Directory, Storage or Access and call serve. README.md beside this file is the
// way in; proto/ is the contract, the reference for every field.
export { Failure, smtpReply } from './lib/fail.js';
export { Header, INLINE_LIMIT, Message, unfold } from './lib/message.js';
export { SECONDS } from './lib/metrics.js';
export { Delivery, Event, Filter, Plugin } from './lib/plugin.js';
export { Deliverer, delivered, failed, later } from './lib/deliver.js';
export { Access, Directory, alias, disabled, mailbox, noSuchUser, notMine } from './lib/kinds.js';
export { serve } from './lib/process.js';
export { Mistake, attribute, block, label } from './lib/schema.js';
export { Account, Storage, deliveryFields } from './lib/storage.js';
export { Verdict, accept, defer, discard, disconnect, hold, reject } from './lib/verdict.js';
